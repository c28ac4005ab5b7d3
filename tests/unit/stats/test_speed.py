import math

import pytest

from transferlab.stats.speed import Time, break_even_targets, median_time, time_to_accuracy


def test_the_first_step_that_is_good_enough() -> None:
    steps, scores = [10, 20, 30, 40], [0.2, 0.7, 0.6, 0.9]
    assert time_to_accuracy(steps, scores, 0.65) == Time(20.0, True)
    assert time_to_accuracy(steps, scores, 0.7) == Time(20.0, True)
    assert time_to_accuracy(steps, scores, 0.1) == Time(10.0, True)
    assert time_to_accuracy(steps, scores, 0.71) == Time(40.0, True)


def test_a_run_that_never_gets_there_is_censored() -> None:
    never = time_to_accuracy([10, 20], [0.2, 0.3], 0.5)
    assert never == Time(20.0, False)
    assert (str(never), str(Time(1234.0, True))) == ("> 20", "1234")
    assert time_to_accuracy([10, 20], [math.nan, math.nan], 0.5) == Time(20.0, False)


def test_a_higher_target_takes_longer_and_a_unit_only_scales() -> None:
    steps, scores = [1, 2, 3, 4, 5], [0.1, 0.4, 0.5, 0.8, 0.9]
    times = [time_to_accuracy(steps, scores, target / 10).value for target in range(10)]
    assert times == sorted(times)
    seconds = time_to_accuracy([0.5 * step for step in steps], scores, 0.5)
    assert seconds.value == 0.5 * time_to_accuracy(steps, scores, 0.5).value


def test_median_of_censored_times() -> None:
    done = [Time(value, True) for value in (30.0, 10.0, 20.0)]
    never = Time(50.0, False)
    assert median_time(done) == Time(20.0, True)
    assert median_time([*done, never]) == Time(25.0, True)
    assert median_time([*done, never, never]) == Time(30.0, True)
    assert median_time([*done, never, never, never]) == Time(40.0, False)  # at least (30 + 50) / 2
    assert median_time([never, never, done[0]]) == Time(50.0, False)
    with pytest.raises(ValueError, match="no times"):
        median_time([])


def test_break_even() -> None:
    assert break_even_targets(1000.0, 250.0) == 4.0
    assert break_even_targets(0.0, -5.0) == 0.0
    assert break_even_targets(1000.0, 0.0) == math.inf
    assert break_even_targets(1000.0, -5.0) == math.inf
    for wrong in ((-1.0, 2.0), (math.nan, 2.0), (1.0, math.inf)):
        with pytest.raises(ValueError, match="must be finite"):
            break_even_targets(*wrong)


@pytest.mark.parametrize(
    ("steps", "scores", "target", "message"),
    [
        ([1, 2], [0.1], 0.5, "one score per validation"),
        ([], [], 0.5, "one score per validation"),
        ([2, 1], [0.1, 0.2], 0.5, "Sort"),
        ([1, 1], [0.1, 0.2], 0.5, "Sort"),
        ([1, 2], [0.1, 0.2], math.nan, "target=nan"),
    ],
)
def test_wrong_curves_are_named(
    steps: list[float], scores: list[float], target: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        time_to_accuracy(steps, scores, target)
