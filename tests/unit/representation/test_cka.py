import numpy as np
import pytest

from transferlab.representation import linear_cka, unbiased_linear_cka

BOTH = (linear_cka, unbiased_linear_cka)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("cka", BOTH)
@pytest.mark.parametrize("shape", [(30, 5), (10, 40)])
def test_rotation_scale_and_shift_change_nothing(cka, shape: tuple[int, int], rng) -> None:
    x = rng.normal(size=shape) * np.linspace(0.1, 3, shape[1])
    y = x[:, :3] + rng.normal(size=(shape[0], 3))
    turn = np.linalg.qr(rng.normal(size=(shape[1], shape[1])))[0]
    assert cka(x, x) == pytest.approx(1.0, rel=1e-12)
    assert cka(x, -1e6 * x @ turn + 5) == pytest.approx(1.0, rel=1e-9)
    assert cka(x @ turn + 3, y) == pytest.approx(cka(x, y), rel=1e-9)
    assert cka(y, x) == pytest.approx(cka(x, y), rel=1e-12)


@pytest.mark.parametrize("cka", BOTH)
def test_an_invertible_map_changes_it(cka, rng) -> None:
    x = rng.normal(size=(100, 6))
    assert cka(x, x @ np.diag([10.0, 1, 1, 1, 1, 1])) < 0.9


def test_few_items_make_independent_features_look_alike_and_the_unbiased_form_does_not() -> None:
    biased, unbiased = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(40, 500)), rng.normal(size=(40, 500))
        biased.append(linear_cka(x, y))
        unbiased.append(unbiased_linear_cka(x, y))
    assert np.mean(biased) == pytest.approx(0.922, abs=0.003)
    assert np.mean(unbiased) == pytest.approx(0, abs=4 * np.std(unbiased) / np.sqrt(10))


def test_linear_cka_of_single_features_is_the_squared_correlation(rng) -> None:
    x, y = rng.normal(size=(50, 1)), rng.normal(size=(50, 1))
    assert linear_cka(x, y) == pytest.approx(np.corrcoef(x.T, y.T)[0, 1] ** 2)


def test_the_unbiased_form_by_its_definition(rng) -> None:
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(12, 4))

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        k, m, n, one = a @ a.T, b @ b.T, 12, np.ones(12)
        np.fill_diagonal(k, 0)
        np.fill_diagonal(m, 0)
        total = np.trace(k @ m) + one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2))
        return (total - 2 * one @ k @ m @ one / (n - 2)) / (n * (n - 3))

    expected = hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))
    assert unbiased_linear_cka(x, y) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("cka", BOTH)
def test_wrong_arrays_are_refused(cka, rng) -> None:
    x = rng.normal(size=(10, 3))
    with pytest.raises(ValueError, match="10 items and y has 9"):
        cka(x, x[:9])
    with pytest.raises(ValueError, match="the same for all items"):
        cka(x, np.full((10, 2), 0.1))
    with pytest.raises(ValueError, match="NaN"):
        cka(x, np.where(x > 0, np.nan, x))
    with pytest.raises(ValueError, match=r"shape \(10,\)"):
        cka(x, x[:, 0])


def test_the_unbiased_form_takes_four_items(rng) -> None:
    with pytest.raises(ValueError, match="at least 4"):
        unbiased_linear_cka(np.eye(3), np.eye(3))
