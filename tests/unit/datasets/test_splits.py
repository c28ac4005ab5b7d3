from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from transferlab.datasets.base import Index
from transferlab.datasets.splits import Splits, check_disjoint, make_splits, tie
from transferlab.errors import UserError

MakeIndex = Callable[..., Index]


def hashes(count: int) -> list[str]:
    return [f"{number:064x}" for number in range(count)]


def make(
    index: Index, content: list[str] | None = None, groups: Any = None, **given: Any
) -> Splits:
    options = {"test": 0.3, "validation": 0.2, "split_seed": 0} | given
    return make_splits(index, content or hashes(len(index)), groups, **options)


def parts(splits: Splits) -> list[Any]:
    return [splits.train, splits.validation, splits.test]


@pytest.fixture
def index(make_index: MakeIndex) -> Index:
    return make_index(np.repeat(np.arange(3), [60, 30, 10]))


def test_three_disjoint_splits_cover_everything(index: Index) -> None:
    splits = make(index)
    assert np.array_equal(np.sort(np.concatenate(parts(splits))), np.arange(100))
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts(splits))


def test_drawn_splits_are_stratified(index: Index) -> None:
    splits = make(index)
    assert np.bincount(index.labels[splits.test]).tolist() == [18, 9, 3]
    assert np.bincount(index.labels[splits.validation]).tolist() == [9, 4, 1]


def test_the_same_seed_gives_the_same_splits_and_another_one_others(index: Index) -> None:
    assert make(index).sha256 == make(index).sha256
    assert make(index).sha256 != make(index, split_seed=1).sha256
    assert not np.array_equal(make(index).test, make(index, split_seed=1).test)


def test_test_does_not_depend_on_validation(index: Index) -> None:
    few, many = make(index, validation=0.1), make(index, validation=0.5, max_validation=10)
    assert np.array_equal(few.test, many.test)


def test_a_seed_of_its_own_moves_validation_and_never_test(index: Index) -> None:
    plain, *others = (make(index, validation_seed=seed) for seed in (None, 0, 1))
    validations = {tuple(splits.validation) for splits in (plain, *others)}
    assert len(validations) == 3
    assert len({splits.sha256 for splits in (plain, *others)}) == 3
    assert all(np.array_equal(splits.test, plain.test) for splits in others)
    assert make(index, validation_seed=1).sha256 == others[1].sha256


def test_an_official_validation_split_has_no_seed(make_index: MakeIndex) -> None:
    official = make_index(
        np.repeat([0, 1], 20), splits=("train", "validation", "test", "train") * 10
    )
    seeds = (None, 0, 1)
    assert len({make(official, validation_seed=seed).sha256 for seed in seeds}) == 1


def test_validation_is_capped(index: Index) -> None:
    splits = make(index, max_validation=7)
    assert len(splits.validation) == 7
    assert len(splits.train) == 63


def test_validation_may_be_smaller_than_the_number_of_classes(index: Index) -> None:
    assert len(make(index, max_validation=1).validation) == 1


def test_official_splits_are_honoured(make_index: MakeIndex) -> None:
    names = ["train"] * 20 + ["validation"] * 6 + ["test"] * 4
    index = make_index(np.arange(30) % 2, splits=names)
    splits = make(index)
    assert splits.train.tolist() == list(range(20))
    assert splits.validation.tolist() == list(range(20, 26))
    assert splits.test.tolist() == list(range(26, 30))


def test_missing_validation_is_drawn_from_train(make_index: MakeIndex) -> None:
    index = make_index(np.arange(30) % 2, splits=["train"] * 20 + ["test"] * 10)
    splits = make(index)
    assert splits.test.tolist() == list(range(20, 30))
    assert len(splits.validation) == 4
    assert splits.validation.max() < 20


def test_missing_test_is_drawn_from_train(make_index: MakeIndex) -> None:
    index = make_index(np.arange(30) % 2, splits=["train"] * 20 + ["validation"] * 10)
    splits = make(index)
    assert splits.validation.tolist() == list(range(20, 30))
    assert len(splits.test) == 6
    assert splits.test.max() < 20


@pytest.mark.parametrize("seed", range(5))
def test_groups_and_copies_never_straddle(make_index: MakeIndex, seed: int) -> None:
    random = np.random.default_rng(seed)
    index = make_index(random.integers(0, 3, 300))
    groups = random.integers(0, 60, 300)
    content = hashes(300)
    for copy in range(0, 40, 2):
        content[copy + 1] = content[copy]
    splits = make(index, content, groups, split_seed=seed)
    held = [set(groups[part]) for part in parts(splits)]
    seen = [{content[position] for position in part} for part in parts(splits)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not held[one] & held[other]
        assert not seen[one] & seen[other]
    assert len(splits.test) == pytest.approx(90, abs=20)


def test_ties_run_through_chains() -> None:
    content = ["x", "y", "y", "z", "w"]
    groups = np.array([1, 1, 2, 2, 3])
    units = tie(content, groups)
    assert len(set(units[:4])) == 1
    assert units[4] != units[0]
    assert len(set(tie(content, None))) == 4


def test_groups_count_in_the_hash(make_index: MakeIndex) -> None:
    names = ["train"] * 20 + ["validation"] * 4 + ["test"] * 4
    index = make_index(np.arange(28) % 2, splits=names)
    grouped = make(index, groups=np.arange(28) // 2)
    assert grouped.sha256 != make(index).sha256
    assert np.array_equal(grouped.train, make(index).train)


def test_official_splits_that_share_images_are_refused_or_mended(make_index: MakeIndex) -> None:
    index = make_index(np.arange(30) % 2, splits=["train"] * 20 + ["test"] * 10)
    content = hashes(30)
    content[3], content[4] = content[25], content[25]
    said = r"2 images of train are also in test.*number 3 equals number 25.*duplicates=drop"
    with pytest.raises(UserError, match=said):
        make(index, content)
    splits = make(index, content, duplicates="drop")
    assert splits.test.tolist() == list(range(20, 30))
    assert not {3, 4} & set(splits.train) | {3, 4} & set(splits.validation)
    assert sum(map(len, parts(splits))) == 28


def test_copies_leave_validation_before_test_and_train_before_validation(
    make_index: MakeIndex,
) -> None:
    names = ["train"] * 10 + ["validation"] * 10 + ["test"] * 10
    content = hashes(30)
    content[0] = content[10] = content[20]
    content[1] = content[11]
    splits = make(make_index(np.arange(30) % 2, splits=names), content, duplicates="drop")
    assert [len(part) for part in parts(splits)] == [8, 9, 10]


def test_official_splits_that_share_groups_are_refused(make_index: MakeIndex) -> None:
    index = make_index(np.arange(30) % 2, splits=["train"] * 20 + ["test"] * 10)
    groups = np.arange(30)
    groups[[5, 22]] = 99
    with pytest.raises(UserError, match=r"train and test splits share 1 groups.*group_by=none"):
        make(index, groups=groups)


def test_too_few_images_of_a_class(make_index: MakeIndex) -> None:
    with pytest.raises(UserError, match=r"class 'c1' has 2 images.*3 images or more"):
        make(make_index([0] * 20 + [1] * 2))
    assert [1 in part for part in parts(make(make_index([1] * 20 + [0] * 3)))]
    splits = make(make_index([0] * 20 + [1] * 3))
    assert all(len(part) for part in parts(splits))


def test_a_class_in_too_few_groups(make_index: MakeIndex) -> None:
    index = make_index(np.repeat([0, 1], 20))
    groups = np.r_[np.zeros(20), np.arange(1, 21)].astype(np.int64)
    with pytest.raises(UserError, match=r"class 'c0' has 20 images in 1 groups.*3 groups or more"):
        make(index, groups=groups)


def test_a_class_of_test_that_train_lacks(make_index: MakeIndex) -> None:
    index = make_index([0, 1] * 10 + [2] * 5, splits=["train"] * 20 + ["test"] * 5)
    with pytest.raises(UserError, match=r"class 'c2' has 0 images to draw from"):
        make(index)


def test_official_splits_without_train(make_index: MakeIndex) -> None:
    with pytest.raises(UserError, match="no train images, only test"):
        make(make_index([0, 1] * 5, splits=["test"] * 10))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("test", 0.0),
        ("test", 1.0),
        ("validation", -0.1),
        ("validation", float("nan")),
        ("max_validation", 0),
        ("duplicates", "dorp"),
    ],
)
def test_wrong_options_are_named(index: Index, option: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"`target.{option}="):
        make(index, **{option: value})


def test_check_disjoint_finds_one_shared_image() -> None:
    splits = Splits(np.array([0, 1]), np.array([2]), np.array([3]), "")
    check_disjoint(splits, ["a", "a", "b", "c"])
    with pytest.raises(UserError, match="1 images of validation are also in test"):
        check_disjoint(splits, ["a", "x", "b", "b"])
