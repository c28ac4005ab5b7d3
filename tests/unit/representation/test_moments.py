import numpy as np
import pytest
from scipy.linalg import sqrtm

from transferlab.representation import coral_distance, frechet_distance, frechet_floor


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_frechet_in_one_dimension_is_known(rng) -> None:
    x, y = rng.normal(size=(40, 1)), 2 + 3 * rng.normal(size=(25, 1))
    expected = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    assert frechet_distance(x, y) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "m"), [(60, 80), (6, 80), (6, 5)])
def test_frechet_by_its_definition(n: int, m: int, rng) -> None:
    x, y = rng.normal(size=(n, 10)), 1 + rng.normal(size=(m, 10)) @ rng.normal(size=(10, 10))
    s, t = np.cov(x.T), np.cov(y.T)
    root = sqrtm(s @ t).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t - 2 * root)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y))


def test_halves_of_one_sample_are_far_from_zero_and_whole_samples_at_it() -> None:
    x = np.random.default_rng(0).normal(size=(500, 64)) * np.linspace(0.5, 2, 64)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert 10 < frechet_floor(x) < 20
    assert frechet_floor(x) == frechet_floor(x, seed=0) != frechet_floor(x, seed=1)
    assert frechet_floor(np.tile(x, (20, 1))) < 2


def test_coral_by_its_definition(rng) -> None:
    for n in (50, 4):  # more and fewer items than features
        x, y = rng.normal(size=(n, 6)), 3 * rng.normal(size=(50, 6))
        expected = ((np.cov(x.T) - np.cov(y.T)) ** 2).sum() / (4 * 36)
        assert coral_distance(x, y) == pytest.approx(expected)
        assert coral_distance(x, x) == 0
        assert coral_distance(x + 7, y) == pytest.approx(expected)


def test_wrong_arrays_are_refused(rng) -> None:
    x = rng.normal(size=(10, 3))
    for distance in (frechet_distance, coral_distance):
        with pytest.raises(ValueError, match="3 features and y has 2"):
            distance(x, x[:, :2])
        with pytest.raises(ValueError, match="at least 2"):
            distance(x[:1], x)
    with pytest.raises(ValueError, match="at least 4"):
        frechet_floor(x[:3])
