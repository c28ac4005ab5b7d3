import numpy as np
import pytest

from transferlab.representation import mmd2, mmd_p


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_mmd_by_its_definition(rng) -> None:
    x, y = rng.normal(size=(7, 2)), 1 + rng.normal(size=(5, 2))
    pooled = np.concatenate([x, y])
    d2 = ((pooled[:, None] - pooled[None]) ** 2).sum(axis=-1)
    kernel = np.exp(-d2 / np.median(d2[np.triu_indices(12, k=1)]))
    own = sum(kernel[i, j] for i in range(7) for j in range(7) if i != j) / 42
    other = sum(kernel[i, j] for i in range(7, 12) for j in range(7, 12) if i != j) / 20
    assert mmd2(x, y) == pytest.approx(own + other - 2 * kernel[:7, 7:].mean())


def test_halves_of_one_sample_are_about_zero_and_may_be_below(rng) -> None:
    found = [mmd2(x[:100], x[100:]) for x in rng.normal(size=(40, 200, 8))]
    assert np.mean(found) == pytest.approx(0, abs=4 * np.std(found) / np.sqrt(40))
    assert min(found) < 0
    assert np.abs(found).max() < 0.02


def test_p_is_uniform_without_a_difference_and_small_with_one(rng) -> None:
    same = [mmd_p(x[:20], x[20:], permutations=99) for x in rng.normal(size=(100, 40, 3))]
    assert np.mean(np.array(same) <= 0.1) == pytest.approx(0.1, abs=0.1)
    assert np.mean(same) == pytest.approx(0.5, abs=0.12)
    x = rng.normal(size=(40, 3))
    assert mmd_p(x[:20], x[20:] + 2, permutations=99) == 1 / 100
    assert mmd_p(x, x) == 1


def test_scale_does_not_count(rng) -> None:
    x, y = rng.normal(size=(20, 3)), 1 + rng.normal(size=(20, 3))
    assert mmd2(1e5 * x, 1e5 * y) == pytest.approx(mmd2(x, y), rel=1e-9)


def test_items_that_coincide() -> None:
    assert mmd2(np.ones((5, 2)), np.ones((5, 2))) == 0
    mostly = np.ones((8, 2))
    mostly[0] = 5
    assert np.isfinite(mmd2(mostly, np.ones((9, 2))))


def test_wrong_arguments_are_refused(rng) -> None:
    x = rng.normal(size=(10, 3))
    with pytest.raises(ValueError, match="permutations=0"):
        mmd_p(x, x, permutations=0)
    with pytest.raises(ValueError, match="3 features and y has 2"):
        mmd2(x, x[:, :2])
