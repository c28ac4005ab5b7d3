from collections.abc import Callable

import numpy as np
import pytest

from transferlab import transferability
from transferlab.transferability import (
    gbc,
    h_score,
    knn_accuracy,
    leep,
    logme,
    nce,
    parc,
    permutation_z,
    regularized_h_score,
    transrate,
)

ON_FEATURES = {
    "logme": logme, "h_score": h_score, "regularized_h_score": regularized_h_score,
    "transrate": transrate, "gbc": gbc, "parc": parc, "knn": lambda x, y: knn_accuracy(x, y, 5),
}  # fmt: skip
Score = Callable[..., float]


@pytest.mark.parametrize("name", ON_FEATURES)
def test_the_order_of_rows_does_not_count(name: str, cases, rng) -> None:
    case, score = cases["imbalanced"], ON_FEATURES[name]
    order = rng.permutation(len(case.y))
    assert score(case.x[order], case.y[order]) == pytest.approx(score(case.x, case.y), rel=1e-9)
    assert leep(case.probs[order], case.y[order]) == pytest.approx(leep(case.probs, case.y))
    assert nce(case.z[order], case.y[order]) == pytest.approx(nce(case.z, case.y))


@pytest.mark.parametrize("name", ON_FEATURES)
@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        (np.ones(6), [0, 1] * 3, r"shape \(6,\)"),
        (np.ones((6, 2)), [0, 1], r"expected \(6,\)"),
        (np.ones((6, 2)), [3] * 6, "1 class"),
        (np.full((6, 2), np.nan), [0, 1] * 3, "6 of 6 rows hold NaN"),
        (np.ones((6, 2)), [0.0, np.nan] * 3, "NaN"),
    ],
)
def test_wrong_arrays_are_refused(name: str, x: np.ndarray, y: list, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ON_FEATURES[name](x, y)


def test_z_tells_labels_from_shuffled_ones(cases) -> None:
    case = cases["base"]
    assert permutation_z(lambda y: regularized_h_score(case.x, y), case.y, shuffles=10) > 10
    shuffled = cases["shuffled"].y
    assert abs(permutation_z(lambda y: logme(case.x, y), shuffled, shuffles=10)) < 4


def test_z_by_its_definition() -> None:
    y, calls = np.array([0, 0, 1, 1, 1]), []

    def score(labels: np.ndarray) -> float:
        calls.append(np.array(labels))
        return float((np.asarray(labels) * np.arange(5)).sum())

    z = permutation_z(score, y, shuffles=7, seed=3)
    values = [(labels * np.arange(5)).sum() for labels in calls]
    assert len(calls) == 8
    assert all(sorted(labels) == sorted(y) for labels in calls)
    assert z == pytest.approx((values[-1] - np.mean(values[:-1])) / np.std(values[:-1], ddof=1))
    assert permutation_z(score, y, shuffles=7, seed=3) == z
    assert permutation_z(score, y, shuffles=7, seed=4) != z


def test_items_of_a_group_are_no_independent_evidence(rng) -> None:
    groups = np.repeat(np.arange(12), 20)
    y = np.repeat(rng.permutation(np.arange(12) % 2), 20)
    x = rng.normal(size=(12, 5))[groups] + 0.1 * rng.normal(size=(240, 5))  # groups, not classes

    def score(labels: np.ndarray) -> float:
        return logme(x, labels)

    assert permutation_z(score, y) > 10
    assert abs(permutation_z(score, y, groups=groups)) < 4


def blind(labels: np.ndarray) -> float:
    return 1.0


def test_a_score_that_does_not_look_has_no_z_and_mixed_groups_are_refused() -> None:
    assert np.isnan(permutation_z(blind, [0, 1, 0, 1]))
    with pytest.raises(ValueError, match="1 of 2 groups hold several classes"):
        permutation_z(blind, [0, 1, 0, 0], groups=[5, 5, 7, 7])
    with pytest.raises(ValueError, match="shuffles=1"):
        permutation_z(blind, [0, 1], shuffles=1)


def test_the_package_offers_what_people_script_against() -> None:
    public = {"logme", "leep", "nce", "h_score", "regularized_h_score", "transrate", "gbc"}
    assert public | {"knn_accuracy", "n_leep", "parc"} <= set(transferability.__all__)
