import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from transferlab.transferability import IllPosedWarning, h_score, regularized_h_score

H = {"base": 7.7214404, "shuffled": 1.2441889, "imbalanced": 7.3658812}
H_REG = {
    "base": 7.2239346, "shuffled": 0.9713594, "few_shot": 5.3980215, "imbalanced": 6.3318268,
}  # fmt: skip


@pytest.mark.parametrize("name", H)
def test_reference_values(name: str, cases) -> None:
    assert h_score(cases[name].x, cases[name].y) == pytest.approx(H[name], rel=1e-7)


@pytest.mark.parametrize("name", H_REG)
def test_reference_values_of_the_regularised_form(name: str, cases) -> None:
    found = regularized_h_score(cases[name].x, cases[name].y)
    assert found == pytest.approx(H_REG[name], rel=1e-7)


def test_with_fewer_items_than_features_any_labels_score_the_number_of_classes(cases, rng) -> None:
    case = cases["few_shot"]
    for labels in (case.y, rng.permutation(case.y)):
        with pytest.warns(IllPosedWarning, match="40 items with 64 features"):
            assert h_score(case.x, labels) == pytest.approx(9.0)
    told = regularized_h_score(case.x, case.y)
    assert told > 1.4 * regularized_h_score(case.x, rng.permutation(case.y))


def test_the_mean_under_shuffled_labels_is_known(cases, rng) -> None:
    case = cases["base"]
    null = [h_score(case.x, rng.permutation(case.y)) for _ in range(100)]
    expected = 9 * 64 / 499
    assert np.mean(null) == pytest.approx(expected, abs=4 * np.std(null) / 10)


def test_perfectly_separate_classes_reach_the_bound(rng) -> None:
    y = np.repeat([0, 1, 2], 30)
    x = np.eye(3)[y] @ rng.normal(size=(3, 3))
    assert h_score(x, y) == pytest.approx(2.0)


def test_both_are_invariant_to_scale_and_shift_and_h_to_any_invertible_map(cases, rng) -> None:
    case = cases["imbalanced"]
    plain, regular = h_score(case.x, case.y), regularized_h_score(case.x, case.y)
    moved = 1e5 * case.x + 3
    assert h_score(moved, case.y) == pytest.approx(plain, rel=1e-9)
    assert regularized_h_score(moved, case.y) == pytest.approx(regular, rel=1e-9)
    assert h_score(case.x @ rng.normal(size=(64, 64)), case.y) == pytest.approx(plain, rel=1e-8)


def test_the_regularised_form_by_its_definition(rng) -> None:
    y = np.repeat([0, 1, 2], 20)
    x = rng.normal(size=(60, 5)) + y[:, None]
    centred = x - x.mean(axis=0)
    fitted = LedoitWolf().fit(centred)
    between = np.cov(np.stack([centred[y == k].mean(axis=0) for k in y]), rowvar=False)
    expected = np.trace(np.linalg.inv(fitted.covariance_) @ between) * (1 - fitted.shrinkage_)
    assert regularized_h_score(x, y) == pytest.approx(expected, rel=1e-9)


def test_features_that_never_change_score_nothing() -> None:
    x, y = np.ones((20, 3)), np.repeat([0, 1], 10)
    assert h_score(x, y) == 0
    assert regularized_h_score(x, y) == 0
    x[:, 1] = np.arange(20)  # one feature alone is alive
    assert regularized_h_score(x, y) > 0
