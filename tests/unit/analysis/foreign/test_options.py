from typing import Any

import pytest

from transferlab.analysis.foreign.options import Options, checked
from transferlab.analysis.formats import points
from transferlab.errors import UserError


def options(metric: str = "accuracy", margin: float | None = None, **more: Any) -> Options:
    more = {"percent": False, "lower_is_better": False, **more}
    return checked(metric, margin, more.pop("alpha", 0.05), **more)


def test_the_default_is_a_point_of_accuracy() -> None:
    assert options() == Options("accuracy", 0.01, 0.05)
    assert options("Macro-Recall").metric == "macro_recall"
    assert options().margin_words == "1 point"
    assert options(margin=0.005).margin_words == "0.5 points"


def test_other_units_show_a_digit_more_than_the_margin() -> None:
    loss = options("log-loss", 0.01, lower_is_better=True)
    assert (loss.unit.noun, loss.unit.decimals) == ("nats", 3)
    assert points(-0.0123, unit=loss.unit) == "−0.012"
    assert options("kappa", 0.5).unit.decimals == 2
    assert options("score", 20).unit.decimals == 0
    assert options("my metric", percent=True).unit.noun == "points"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"metric": "log_loss"}, "--lower-is-better"),
        ({"metric": "accuracy", "lower_is_better": True}, "better when higher"),
        ({"metric": "kappa"}, "add --margin"),
        ({"metric": " "}, "--metric is empty"),
        ({"margin": 1.0}, "0.01 is one point"),
        ({"margin": 0.0}, "above 0"),
        ({"margin": float("nan")}, "no margin"),
        ({"alpha": 0.95}, "no error rate"),
    ],
)
def test_what_does_not_fit_together_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        options(**given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
