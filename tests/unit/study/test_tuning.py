import math

import pytest

from transferlab.study.tuning import Choice, choose, extended, points

GRID = {"optimizer.lr": [0.001, 0.003, 0.01]}


def scored(*scores: float) -> dict:
    return {(("optimizer.lr", lr),): [score] for lr, score in
            zip(GRID["optimizer.lr"], scores, strict=True)}  # fmt: skip


def test_points_cross_the_axes_smaller_values_first() -> None:
    assert points({"b": [2, 1], "a": ["y", "x"]}) == [
        (("b", 1), ("a", "y")), (("b", 1), ("a", "x")), (("b", 2), ("a", "y")),
        (("b", 2), ("a", "x")),
    ]  # fmt: skip


def test_the_best_mean_over_seeds_wins() -> None:
    scores = {(("lr", 1),): [0.9, 0.1], (("lr", 2),): [0.6, 0.6], (("lr", 3),): [0.5, 0.5]}
    assert choose({"lr": [1, 2, 3]}, scores) == Choice((("lr", 2),), {})


@pytest.mark.parametrize(
    ("scores", "best", "edges"),
    [
        ((0.5, 0.8, 0.7), 0.003, {}),
        ((0.5, 0.8, 0.8), 0.003, {}),
        ((0.8, 0.8, 0.8), 0.001, {"optimizer.lr": "low"}),
        ((0.5, 0.6, 0.7), 0.01, {"optimizer.lr": "high"}),
        ((math.nan, 0.2, 0.1), 0.003, {}),
        ((math.nan, math.nan, math.nan), 0.001, {"optimizer.lr": "low"}),
    ],
)
def test_ties_go_to_the_smaller_and_ends_are_noticed(scores, best: float, edges: dict) -> None:
    choice = choose(GRID, scored(*scores))
    assert dict(choice.best) == {"optimizer.lr": best}
    assert choice.edges == edges


def test_the_order_of_a_grid_does_not_matter() -> None:
    scores = scored(0.8, 0.8, 0.1)
    backwards = {"optimizer.lr": GRID["optimizer.lr"][::-1]}
    assert choose(backwards, scores) == choose(GRID, scores)


def test_choices_that_are_no_numbers_have_no_edge() -> None:
    scores = {(("head", name),): [score] for name, score in (("linear", 0.1), ("mlp", 0.9))}
    choice = choose({"head": ["linear", "mlp"]}, scores)
    assert choice.edges == {}
    assert extended({"head": ["linear", "mlp"]}, [choice]) is None


def test_a_grid_grows_by_the_ratio_at_the_end_that_won() -> None:
    def at(end: str) -> Choice:
        return Choice((), {"optimizer.lr": end})

    assert extended(GRID, [Choice((), {}), at("high")]) == {
        "optimizer.lr": [0.001, 0.003, 0.01, 0.0333]
    }
    assert extended(GRID, [at("low"), at("high")]) == {
        "optimizer.lr": [0.000333, 0.001, 0.003, 0.01, 0.0333]
    }
    assert extended({"lr": [1, 10]}, [Choice((), {"lr": "high"})]) == {"lr": [1, 10, 100.0]}


def test_a_grid_where_nothing_won_at_an_end_stays() -> None:
    assert extended(GRID, [Choice((), {})]) is None
    assert extended({"lr": [0.1]}, [Choice((), {"lr": "high"})]) is None
    assert extended({"wd": [0.0, 0.1]}, [Choice((), {"wd": "low"})]) is None
