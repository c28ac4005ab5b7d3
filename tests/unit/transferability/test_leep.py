import numpy as np
import pytest

from transferlab.transferability import leep, n_leep, nce

LEEP = {
    "base": -1.6408665, "shuffled": -2.2167693, "few_shot": -1.3844730, "imbalanced": -1.4329423,
}  # fmt: skip
NCE = {
    "base": -1.5278732, "shuffled": -2.0947369, "few_shot": -0.9217722, "imbalanced": -1.2017129,
}  # fmt: skip
ROUNDED = 5e-8
"""The values are known to seven decimals."""


@pytest.mark.parametrize("name", LEEP)
def test_reference_values(name: str, cases) -> None:
    case = cases[name]
    assert leep(case.probs, case.y) == pytest.approx(LEEP[name], rel=1e-9, abs=ROUNDED)
    assert nce(case.z, case.y) == pytest.approx(NCE[name], rel=1e-9, abs=ROUNDED)


def test_leep_of_certain_predictions_is_nce(cases) -> None:
    case = cases["imbalanced"]
    assert leep(np.eye(20)[case.z], case.y) == pytest.approx(nce(case.z, case.y), rel=1e-12)


def test_source_classes_that_are_never_given_do_not_count(cases) -> None:
    case = cases["base"]
    wider = np.concatenate([np.zeros((500, 2)), case.probs, np.zeros((500, 1))], axis=1)
    assert leep(wider, case.y) == pytest.approx(leep(case.probs, case.y), rel=1e-12)


def test_a_source_that_says_one_thing_leaves_the_entropy_of_the_labels(rng) -> None:
    y = np.array([0] * 30 + [1] * 10)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert nce(np.zeros(40, int), y) == pytest.approx(-entropy)
    assert leep(np.full((40, 5), 0.2), y) == pytest.approx(-entropy)
    assert nce(y, y) == pytest.approx(0.0)


def test_n_leep_rises_with_separation_and_ignores_order_and_scale(rng) -> None:
    y = np.repeat(np.arange(4), 40)
    mu, noise = rng.normal(size=(4, 10)), rng.normal(size=(160, 10))
    near, far = n_leep(mu[y] + noise, y), n_leep(6 * mu[y] + noise, y)
    assert near < far <= 0
    order = rng.permutation(160)
    assert n_leep((mu[y] + noise)[order], y[order]) == pytest.approx(near, abs=1e-12)
    assert n_leep(1e4 * (mu[y] + noise), y) == pytest.approx(near, rel=1e-6)


def test_n_leep_of_features_that_never_change_is_minus_the_entropy() -> None:
    assert n_leep(np.ones((40, 3)), np.repeat([0, 1], 20)) == pytest.approx(-np.log(2))


@pytest.mark.parametrize(
    ("probs", "told"),
    [
        (np.full((4, 3), 0.5), "off by 0.5"),
        (np.array([[1.5, -0.5]] * 4), "probabilities"),
        (np.full((3, 2), 0.5), "expected (3,)"),
        (np.full(4, 0.5), "shape (4,)"),
    ],
)
def test_what_is_no_probability_is_refused(probs: np.ndarray, told: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is what is tested
        leep(probs, [0, 1, 0, 1])
    assert told in str(error.value)


def test_source_labels_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="source_labels has shape"):
        nce(np.zeros((4, 2)), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="at least 2"):
        nce([0, 1, 0], [5, 5, 5])
