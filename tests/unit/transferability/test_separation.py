import numpy as np
import pytest

from transferlab.transferability import gbc, transrate

TRANSRATE = {
    "base": 77.98954, "shuffled": 72.62030, "few_shot": 169.1077, "imbalanced": 150.8728,
    "hetero": 86.2,
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSRATE)
def test_reference_values_weighted_by_class(name: str, cases) -> None:
    tolerance = 1e-3 if name == "hetero" else 1e-6
    found = transrate(cases[name].x, cases[name].y)
    assert found == pytest.approx(TRANSRATE[name], rel=tolerance)


def test_transrate_depends_on_scale_as_is_known(cases) -> None:
    assert transrate(10 * cases["base"].x, cases["base"].y) == pytest.approx(110.2, abs=0.05)


def test_transrate_of_one_feature_by_its_definition() -> None:
    x, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), [0, 0, 1, 1]

    def rate(values: np.ndarray) -> float:
        return 0.5 * np.log(1 + (values**2).sum() / (len(values) * 1e-4))

    assert transrate(x, y) == pytest.approx(rate(x) - rate(x[:2]))


def test_gbc_of_the_paper_and_not_of_its_code(cases) -> None:
    assert gbc(cases["hetero"].x, cases["hetero"].y) == pytest.approx(-3.54, abs=0.005)


def test_gbc_of_two_known_gaussians_in_one_dimension() -> None:
    x, y = np.array([[0.0], [2.0], [3.0], [9.0]]), [0, 0, 1, 1]  # means 1, 6; variances 1, 9
    distance = 25 / 5 / 8 + 0.5 * np.log(5 / np.sqrt(9))
    assert gbc(x, y) == pytest.approx(-np.exp(-distance))


def test_gbc_counts_pairs_of_classes_that_cannot_be_told_apart(rng) -> None:
    x = np.tile(rng.normal(size=(10, 4)), (3, 1))
    assert gbc(x, np.repeat([0, 1, 2], 10)) == pytest.approx(-3.0)


def test_gbc_projects_wide_features_and_turning_them_changes_nothing(rng) -> None:
    x, y = rng.normal(size=(60, 100)), np.repeat([0, 1, 2], 20)
    turned = x @ np.linalg.qr(rng.normal(size=(100, 100)))[0]
    assert gbc(turned, y) == pytest.approx(gbc(x, y), rel=1e-9)


def test_classes_of_one_item_and_features_that_never_change(rng) -> None:
    assert -1 <= gbc(rng.normal(size=(2, 100)), [0, 1]) <= 0
    assert gbc(np.ones((6, 100)), [0, 0, 1, 1, 2, 2]) == pytest.approx(-3.0)
    assert transrate(np.ones((6, 3)), [0, 0, 1, 1, 2, 2]) == 0
