import numpy as np
import pytest

from transferlab.datasets.apportion import Draw, draw_share, quotas


def test_quotas_add_up_to_the_share() -> None:
    counts = np.array([33, 33, 34, 7])
    quota = quotas(counts, Draw(0.2, leave=1))
    assert quota.sum() == round(0.2 * 107)
    assert np.abs(quota - 0.2 * counts).max() < 1


def test_every_class_gets_one_even_of_a_small_share() -> None:
    assert quotas(np.array([1000, 3, 2]), Draw(0.01, leave=1)).tolist() == [9, 1, 1] or (
        quotas(np.array([1000, 3, 2]), Draw(0.01, leave=1)).min() == 1
    )


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 19])
def test_at_most_is_never_passed(limit: int) -> None:
    counts = np.array([50, 40, 3])
    assert quotas(counts, Draw(0.2, leave=1, at_most=limit)).sum() <= limit
    labels = np.repeat(np.arange(3), counts)
    units = np.arange(93) // 2
    drawn = draw_share(labels, units, Draw(0.2, 1, limit), np.random.default_rng(0))
    assert len(drawn) <= limit


def test_single_images_meet_the_quota_exactly() -> None:
    labels = np.repeat(np.arange(3), [100, 50, 10])
    drawn = draw_share(labels, np.arange(160), Draw(0.3, leave=1), np.random.default_rng(0))
    assert np.bincount(labels[drawn]).tolist() == [30, 15, 3]


@pytest.mark.parametrize("seed", range(10))
def test_units_stay_whole_and_near_the_quota(seed: int) -> None:
    random = np.random.default_rng(seed)
    units = random.integers(0, 60, 400)
    labels = random.integers(0, 4, 400)  # units of mixed labels
    drawn = draw_share(labels, units, Draw(0.25, leave=1), np.random.default_rng(seed))
    outside = np.setdiff1d(np.arange(400), drawn)
    assert not set(units[drawn]) & set(units[outside])
    assert len(drawn) == pytest.approx(100, abs=12)


def test_a_pair_among_single_images_is_as_likely_as_any() -> None:
    labels, units = np.zeros(41, dtype=np.int64), np.r_[0, np.arange(40)]
    hits = 0
    for seed in range(300):
        drawn = draw_share(labels, units, Draw(0.25, leave=1), np.random.default_rng(seed))
        hits += 0 in drawn
    assert hits / 300 == pytest.approx(0.25, abs=0.08)


def test_one_unit_of_each_class_is_left_behind() -> None:
    labels = np.repeat([0, 1], [20, 20])
    units = np.r_[np.zeros(18), 1, 2, np.arange(3, 23)].astype(np.int64)
    for seed in range(20):
        drawn = draw_share(labels, units, Draw(0.9, leave=2), np.random.default_rng(seed))
        outside = np.setdiff1d(np.arange(40), drawn)
        assert len(np.unique(units[outside][labels[outside] == 0])) >= 2


def test_a_class_of_big_units_gives_its_smallest() -> None:
    labels = np.zeros(30, dtype=np.int64)
    units = np.repeat([0, 1, 2], [12, 10, 8])
    drawn = draw_share(labels, units, Draw(0.1, leave=1), np.random.default_rng(0))
    assert set(units[drawn]) == {2}
