import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from transferlab.datasets.subsets import draw_subset
from transferlab.errors import UserError

LABELS = np.repeat(np.arange(3), [40, 30, 20])
ALL = np.arange(90)


def draw(groups: Any = None, positions: Any = ALL, seed: int = 0, **given: Any) -> Any:
    options: dict[str, Any] = {"shots": None, "fraction": None} | given
    return draw_subset(LABELS, positions, groups, seed=seed, **options)


def test_shots_are_counted_per_class() -> None:
    assert np.bincount(LABELS[draw(shots=7)]).tolist() == [7, 7, 7]


def test_fractions_are_stratified_with_one_at_the_least() -> None:
    assert np.bincount(LABELS[draw(fraction=0.5)]).tolist() == [20, 15, 10]
    assert np.bincount(LABELS[draw(fraction=0.001)]).tolist() == [1, 1, 1]
    assert len(draw(fraction=1.0)) == 90


def test_no_limit_gives_everything() -> None:
    assert np.array_equal(draw(positions=ALL[::-1]), ALL)


@pytest.mark.parametrize("seed", range(5))
def test_smaller_subsets_lie_inside_larger_ones(seed: int) -> None:
    sizes = [set(draw(shots=shots, seed=seed)) for shots in range(1, 21)]
    shares = [set(draw(fraction=share, seed=seed)) for share in np.linspace(0.01, 1, 40)]
    for chain in (sizes, shares):
        assert all(small <= large for small, large in pairwise(chain))
    assert sizes[4] <= set(draw(fraction=0.5, seed=seed))  # 5 shots inside 10 or more of a class


def test_replicates_differ_and_repeat() -> None:
    assert np.array_equal(draw(shots=5), draw(shots=5))
    assert len({tuple(draw(shots=5, seed=seed)) for seed in range(20)}) == 20


def test_only_the_given_positions_are_drawn_from() -> None:
    half = ALL[::2]
    assert set(draw(positions=half, shots=10)) <= set(half)


def test_a_class_does_not_depend_on_the_others() -> None:
    whole = draw(shots=5)
    alone = draw(positions=ALL[LABELS == 2], shots=5)
    assert np.array_equal(whole[LABELS[whole] == 2], alone)


def test_a_shot_is_a_group() -> None:
    groups = ALL // 5
    chosen = draw(groups=groups, shots=2)
    assert len(chosen) == 30
    kept = set(groups[chosen])
    assert len(kept) == 6
    assert set(chosen) == set(np.flatnonzero(np.isin(groups, list(kept))))
    assert set(chosen) <= set(draw(groups=groups, shots=3))


def test_groups_of_mixed_labels_can_not_be_shots() -> None:
    groups = ALL // 4 * 4
    groups[[0, 45]] = 1000
    with pytest.raises(UserError, match=r"groups hold images of several.*target.fraction"):
        draw(groups=groups, shots=2)
    chosen = draw(groups=groups, fraction=0.5)
    assert set(groups[chosen]).isdisjoint(groups[np.setdiff1d(ALL, chosen)])


def test_too_many_shots_name_class_count_and_limit() -> None:
    said = r"target.shots=21.*class 'dog' has only 20 images.*largest possible is `target.shots=20`"
    with pytest.raises(UserError, match=said):
        draw(shots=21, classes=("ant", "bee", "dog"))
    with pytest.raises(UserError, match=r"class '2' has only 4 groups"):
        draw(shots=5, groups=ALL // 5)
    assert len(draw(shots=20)) == 60


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shots": 0}, "target.shots=0"),
        ({"shots": -3}, "target.shots=-3"),
        ({"fraction": 0.0}, "target.fraction"),
        ({"fraction": 1.2}, "target.fraction"),
        ({"shots": 5, "fraction": 0.5}, "exclude each other"),
    ],
)
def test_wrong_limits_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        draw(**options)


def test_a_mixed_group_counts_for_its_commonest_class() -> None:
    labels, groups = np.array([0, 1, 1, 0, 0, 1]), np.array([7, 7, 7, 8, 8, 9])
    whole = {7: 1, 8: 0, 9: 1}
    for seed in range(5):
        chosen = draw_subset(labels, np.arange(6), groups, shots=None, fraction=0.1, seed=seed)
        assert sorted(whole[group] for group in set(groups[chosen].tolist())) == [0, 1]


def test_many_classes_and_images_are_quick() -> None:
    labels = np.random.default_rng(0).integers(0, 500, 100_000)
    begun = time.perf_counter()
    draw_subset(labels, np.arange(100_000), None, shots=5, fraction=None, seed=0)
    assert time.perf_counter() - begun < 2  # 0.06 s measured
