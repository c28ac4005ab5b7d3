import math

import pytest

from transferlab.errors import UserError
from transferlab.study.space import Range, Trial, choose_trial, corners, read_space

LR = {"optimizer.lr": Range(1e-4, 1e-1, log=True)}


def at(space: dict, *found: tuple) -> list[Trial]:
    (key,) = space
    return [Trial(((key, value),), {0: score}) for value, score in found]


def test_a_space_is_read_as_it_is_written() -> None:
    assert read_space({
        "optimizer.lr": {"low": 1e-4, "high": 0.1, "log": True},
        "depth": {"low": 1, "high": 9, "step": 2},
        "share": {"low": 0.0, "high": 1, "step": 0.25},
        "head": ["linear", None, True, 3],
    }) == {
        "optimizer.lr": Range(1e-4, 0.1, log=True),
        "depth": Range(1, 9, step=2),
        "share": Range(0.0, 1, step=0.25),
        "head": ("linear", None, True, 3),
    }  # fmt: skip


def test_no_search_is_no_space_and_no_mapping_is_none() -> None:
    assert read_space(None) == read_space({}) == {}
    with pytest.raises(UserError, match=r"study.tune.search=3: expected keys"):
        read_space(3)


def test_numbers_are_whole_where_both_ends_are_written_so() -> None:
    assert Range(1, 9).whole
    assert not Range(0.0, 1).whole


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        ({"low": 0.1}, ("low: 1e-4", "list of choices")),
        (0.1, ("0.1", "list of choices")),
        ({"low": 1, "high": 2, "lgo": True}, ("'lgo'", "log")),
        ({"low": "a", "high": 2}, ("low='a'", "a number")),
        ({"low": 1, "high": True}, ("high=True", "a number")),
        ({"low": 1, "high": 2, "log": 1}, ("log=1", "true or false")),
        ({"low": 2, "high": 2}, ("low=2", "below high")),
        ({"low": 0.0, "high": math.inf}, ("high=inf", "below high")),
        ({"low": 0.0, "high": 1.0, "log": True}, ("low=0.0", "above 0")),
        ({"low": 1, "high": 8, "log": True, "step": 1}, ("step=1", "no step")),
        ({"low": 0.0, "high": 1.0, "step": 0.3}, ("step=0.3", "does not lead")),
        ({"low": 0.0, "high": 1.0, "step": -0.5}, ("step=-0.5", "does not lead")),
        ({"low": 1, "high": 3, "step": 0.5}, ("step=0.5", "whole step")),
        ([1], ("[1]", "two different")),
        ([1, 1], ("[1, 1]", "two different")),
        ([{"a": 1}, 2], ("two different",)),
    ],
)
def test_what_is_no_space_is_named(found, holds: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as told:
        read_space({"optimizer.lr": found})
    assert all(text in str(told.value) for text in ("study.tune.search.optimizer.lr", *holds))


@pytest.mark.parametrize(
    ("best", "end"),
    [
        (1e-4, "low"), (1.4e-4, "low"), (1.5e-4, None), (0.01, None), (0.07, None), (0.072, "high"),
        (0.1, "high"),
    ],
)  # fmt: skip
def test_a_best_value_within_a_twentieth_of_an_end_is_at_it(best: float, end: str | None) -> None:
    choice = choose_trial(LR, at(LR, (best, 0.9), (0.02, 0.5)))
    assert dict(choice.best) == {"optimizer.lr": best}
    assert choice.edges == ({"optimizer.lr": end} if end else {})


def test_choices_have_ends_only_where_they_are_numbers() -> None:
    numbers, words = {"wd": (0.1, 0.0, 0.01)}, {"head": ("linear", "mlp")}
    assert choose_trial(numbers, at(numbers, (0.1, 0.9), (0.01, 0.5))).edges == {"wd": "high"}
    assert choose_trial(numbers, at(numbers, (0.1, 0.1), (0.01, 0.5))).edges == {}
    assert choose_trial(words, at(words, ("linear", 0.9), ("mlp", 0.5))).edges == {}


def test_ties_go_to_the_smaller_value_whatever_the_order() -> None:
    trials = at(LR, (0.02, 0.9), (0.003, 0.9), (0.01, 0.9))
    assert choose_trial(LR, trials) == choose_trial(LR, trials[::-1])
    assert dict(choose_trial(LR, trials).best) == {"optimizer.lr": 0.003}


def test_the_mean_counts_and_no_score_is_the_worst() -> None:
    found = [
        Trial((("optimizer.lr", 0.01),), {0: 0.9, 1: math.nan}),
        Trial((("optimizer.lr", 0.02),), {0: 0.5, 1: 0.5}),
        Trial((("optimizer.lr", 0.03),), {0: -math.inf, 1: 0.9}),
    ]
    assert dict(choose_trial(LR, found).best) == {"optimizer.lr": 0.02}


def test_a_trial_that_was_stopped_everywhere_is_not_chosen() -> None:
    stopped = Trial((("optimizer.lr", 0.01),), {0: 0.9, 1: 0.9}, pruned=[0, 1])
    partly = Trial((("optimizer.lr", 0.02),), {0: 0.6, 1: 0.4}, pruned=[1])
    assert dict(choose_trial(LR, [stopped, partly]).best) == {"optimizer.lr": 0.02}
    assert dict(choose_trial(LR, [stopped]).best) == {"optimizer.lr": 0.01}


def test_corners_hold_every_end_and_choice() -> None:
    found = corners(LR | {"head": ("a", "b", "c")})
    assert {dict(point)["optimizer.lr"] for point in found} == {1e-4, 1e-1}
    assert {dict(point)["head"] for point in found} == {"a", "b", "c"}
