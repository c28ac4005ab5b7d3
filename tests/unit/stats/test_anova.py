import numpy as np
import pytest

from transferlab.stats.anova import analyse, codes, cross, moved, names


def test_codes_number_ids_in_sorted_order_and_names_give_them_back() -> None:
    ids = np.array(["b", "a", "c", "a"])
    assert codes("ids", ids, 4).tolist() == [1, 0, 2, 0]
    assert names(ids) == ["a", "b", "c"]
    mixed = np.array([2, "x", 2], dtype=object)
    assert [names(mixed)[code] for code in codes("ids", mixed, 3)] == ["2", "x", "2"]


def test_moves_of_a_mean_are_its_own_analysis_of_variance() -> None:
    scores = np.random.default_rng(0).normal(size=(4, 30))
    means = scores.mean(axis=1)
    (stratum,) = moved(means, (scores - means[:, None]) / 30, None, None)
    assert stratum == pytest.approx(scores)
    found, expected = (analyse([each], "", 0.0)[:3] for each in (stratum, scores))
    assert found == pytest.approx(expected)


def test_strata_of_moves_add_their_variances() -> None:
    """A difference of two classes' means has the sum of the variances of the two."""
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], [20, 50])
    scores = rng.normal(size=70) + 0.1 * rng.normal(size=(300, 70))
    sides = [scores[:, labels == kind] for kind in (0, 1)]
    estimates = sides[1].mean(axis=1) - sides[0].mean(axis=1)
    moves = np.hstack(
        [
            (side - side.mean(axis=1, keepdims=True)) * sign / side.shape[1]
            for side, sign in zip(sides, (-1, 1), strict=True)
        ]
    )
    delta, _, test_part, _ = analyse(moved(estimates, moves, None, labels), "", 0.0)
    expected = sum(side.mean(axis=0).var(ddof=1) / side.shape[1] for side in sides)
    assert delta == pytest.approx(estimates.mean())
    assert test_part == pytest.approx(expected, rel=0.01)


def test_clusters_that_span_classes_make_one_stratum() -> None:
    labels = np.array([0, 0, 1, 1])
    inside, across = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert not cross(inside, labels)
    assert cross(across, labels)
    moves = np.array([[0.1, -0.1, 0.2, -0.2]])
    assert [each.shape for each in moved(np.zeros(1), moves, inside, labels)] == [(1, 1), (1, 1)]
    (whole,) = moved(np.ones(1), moves, across, labels)
    assert whole == pytest.approx(np.array([[1 + 2 * 0.3, 1 - 2 * 0.3]]))
