import numpy as np
import pytest
from scipy.optimize import minimize

from transferlab.transferability import logme

REFERENCE = {"base": 0.4557146, "shuffled": -0.2485662, "imbalanced": 0.4094034}


@pytest.mark.parametrize(("name", "expected"), REFERENCE.items())
def test_reference_values(name: str, expected: float, cases) -> None:
    assert logme(cases[name].x, cases[name].y) == pytest.approx(expected, rel=2e-3)


def test_with_fewer_items_than_features_the_maximum_lies_above_a_fixed_point_cut_short(
    cases,
) -> None:
    # classes of about +-0.1 cancel in the mean, so that 2e-3 is of their size and not of the mean's
    found = logme(cases["few_shot"].x, cases["few_shot"].y)
    assert found > -0.0207461
    assert found == pytest.approx(-0.0207461, abs=2e-3 * 0.1)


def test_it_is_the_maximum_of_the_evidence_over_both_precisions(rng) -> None:
    x, y = rng.normal(size=(30, 4)), np.repeat([0, 1, 2], 10)
    x[:, 0] += y
    best = []
    for k in range(3):
        target = (y == k).astype(float)

        def negative(logs: np.ndarray, target: np.ndarray = target) -> float:
            alpha, beta = np.exp(logs)
            covariance = np.eye(30) / beta + x @ x.T / alpha
            _, logdet = np.linalg.slogdet(covariance)
            fit = target @ np.linalg.solve(covariance, target)
            return float(0.5 * (fit + logdet + 30 * np.log(2 * np.pi))) / 30

        best.append(-minimize(negative, [0.0, 0.0], method="Nelder-Mead", tol=1e-10).fun)
    assert logme(x, y) == pytest.approx(np.mean(best), rel=1e-6)


def test_an_offset_counts_and_scale_does_not(cases) -> None:
    base = cases["base"]
    found = logme(base.x, base.y)
    assert logme(cases["offset"].x, base.y) == pytest.approx(0.505, abs=1e-3)
    for scale in (1e-6, 1e6):
        assert logme(base.x * scale, base.y) == pytest.approx(found, rel=1e-9)


def test_classes_that_do_not_occur_and_their_names_do_not_count(cases) -> None:
    base = cases["base"]
    assert logme(base.x, base.y * 3 + 7) == logme(base.x, base.y)
    assert logme(base.x, np.array(list("abcdefghij"))[base.y]) == logme(base.x, base.y)


def test_features_that_are_all_zero_score_as_labels_alone() -> None:
    n, own = 20, 10
    expected = (n * np.log(n / own) - n - n * np.log(2 * np.pi)) / (2 * n)
    assert logme(np.zeros((n, 3)), np.repeat([0, 1], own)) == pytest.approx(expected)
