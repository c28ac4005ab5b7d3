import numpy as np
import pytest

from transferlab.transferability.alarms import (
    knows_no_labels,
    neighbours_for,
    reads_no_better,
    share,
)

Y = np.repeat([0, 1], [6, 4])


def right(*items: int) -> np.ndarray:
    found = np.zeros(10, dtype=bool)
    found[list(items)] = True
    return found


def test_w1_compares_with_the_best_of_the_baselines() -> None:
    source = right(0, 1, 2, 3, 6, 7)
    silent = reads_no_better(source, {"random_init": right(0), "raw_pixels": right(0, 6, 8)}, Y)
    assert (silent.fires, silent.against) == (False, "raw_pixels")
    assert silent.value == pytest.approx(0.3)
    difference = source.astype(int) - right(0, 6, 8)
    assert silent.se == pytest.approx(difference.std(ddof=1) / np.sqrt(10))
    assert "60.0 % against 30.0 %" in silent.why


def test_w1_fires_where_the_source_is_no_better() -> None:
    same = right(0, 6)
    assert reads_no_better(same, {"random_init": same}, Y).fires
    assert reads_no_better(same, {"random_init": right(0), "raw_pixels": right(0, 1, 2)}, Y).fires


def test_w1_can_count_classes_alike() -> None:
    source, pixels = right(*range(6)), right(6, 7, 8, 9)  # all of one class each
    assert not reads_no_better(source, {"raw_pixels": pixels}, Y).fires
    assert reads_no_better(source, {"raw_pixels": pixels}, Y, balanced=True).value == 0
    assert share(source, Y) == pytest.approx(0.6)
    assert share(source, Y, balanced=True) == pytest.approx(0.5)


def test_w1_says_nothing_of_one_item_a_class() -> None:
    alarm = reads_no_better(np.zeros(3, bool), {"raw_pixels": np.zeros(3, bool)}, [0, 1, 2])
    assert alarm.fires is None
    with pytest.raises(ValueError, match="baselines is empty"):
        reads_no_better(right(0), {}, Y)


@pytest.mark.parametrize(
    ("z", "fires"), [((9.0, 8.0), False), ((9.0, 1.9), True), ((-1.0, 9.0), True)]
)
def test_w2_fires_where_either_score_does_not_stand_out(z: tuple, fires: bool) -> None:
    alarm = knows_no_labels(*z)
    assert (alarm.fires, alarm.value) == (fires, min(z))


def test_w2_without_spread_says_nothing() -> None:
    assert knows_no_labels(None, 3.0).fires is None


def test_few_items_ask_one_neighbour() -> None:
    assert neighbours_for(np.repeat([0, 1], [9, 99])) == 1
    assert neighbours_for(np.repeat([0, 1], [10, 99])) == 5
