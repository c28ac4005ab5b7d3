import pytest

from transferlab.analysis import formats
from transferlab.analysis.facts import spans
from transferlab.analysis.figures import Scale, mean_curve


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.06, "+6.0"), (-0.118, "−11.8"), (0.0, "0.0"), (-0.0001, "0.0"), (None, "–")],
)
def test_points(share: float | None, text: str) -> None:
    assert formats.points(share) == text


def test_an_interval_never_shows_a_bound_as_zero_that_is_not() -> None:
    assert formats.interval(0.0002, 0.03) == "+0.02 to +3.00"
    assert formats.interval(-0.005, 0.018) == "−0.5 to +1.8"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.65, "0.65 s"), (1.5, "1.5 s"), (125, "2 min 05 s"), (4320, "1 h 12 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(325, "325"), (483_000, "483 k"), (2_900_000, "2.9 M"), (99_960, "100 k")]
)
def test_large(number: float, text: str) -> None:
    assert formats.large(number) == text


def test_words_and_spans() -> None:
    assert formats.listing(["a", "b", "c"]) == "a, b and c"
    assert formats.count(1, "run") == "1 run"
    assert formats.count(1200, "image") == "1,200 images"
    assert formats.p_value(0.0004) == "<0.001"
    assert formats.size(412_000_000) == "412 MB"
    assert spans([7, 0, 1, 2, 5]) == "0–2, 5, 7"
    assert spans([]) == "–"


def test_a_scale_holds_its_values_and_has_round_ticks() -> None:
    scale = Scale.over([-0.2, 0.11])
    assert 0 < scale.at(-0.2) < scale.at(0) < scale.at(0.11) < 100
    assert scale.ticks() == pytest.approx([-0.2, -0.1, 0.0, 0.1])
    flat = Scale.over([0.5, 0.5])
    assert flat.low < 0.5 < flat.high


def test_mean_curve_averages_at_each_step() -> None:
    assert mean_curve([[(0, 0.2), (20, 0.4)], [(0, 0.4)]]) == [
        (0, pytest.approx(0.3)),
        (20, pytest.approx(0.4)),
    ]


def test_text_is_no_formula_in_a_csv_and_numbers_stay_numbers() -> None:
    row = {"a": "=1+1", "b": "-0.5", "c": "@x", "d": -0.5, "e": None, "f": "plain", "g": "+x"}
    assert formats.csv_row(row) == row | {"a": "'=1+1", "c": "'@x", "g": "'+x"}
