import numpy as np
import pytest

from transferlab.representation import proxy_a_distance


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_what_can_always_be_told_apart_is_2_and_what_never_can_is_0(rng) -> None:
    x, y = rng.normal(size=(200, 4)), rng.normal(size=(200, 4))
    assert proxy_a_distance(x, y + 20) == 2
    found = [proxy_a_distance(*rng.normal(size=(2, 200, 4))) for _ in range(10)]
    assert min(found) == 0  # clamped
    assert np.mean(found) < 0.2


def test_it_follows_the_error_of_the_best_linear_classifier(rng) -> None:
    x, y = rng.normal(size=(2, 4000, 1))
    error = 0.5 - 0.38292492 / 2  # of two unit Gaussians one apart, cut halfway
    assert proxy_a_distance(x, y + 1) == pytest.approx(2 * (1 - 2 * error), abs=0.06)


def test_unequal_numbers_do_not_make_a_distance(rng) -> None:
    assert proxy_a_distance(rng.normal(size=(1000, 3)), rng.normal(size=(50, 3))) < 0.6


def test_scale_and_shift_of_a_feature_do_not_count_and_it_is_the_same_again(rng) -> None:
    x, y = rng.normal(size=(60, 3)), 0.7 + rng.normal(size=(60, 3))
    scale = np.array([1e-3, 1, 1e3])
    assert proxy_a_distance(scale * x + 5, scale * y + 5) == proxy_a_distance(x, y)


def test_too_few_items_are_refused(rng) -> None:
    with pytest.raises(ValueError, match="at least 4"):
        proxy_a_distance(rng.normal(size=(3, 2)), rng.normal(size=(9, 2)))
