"""Several datasets as one: nothing of a part changes because another stands beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transferlab.datasets.cache import ImageSpec
from transferlab.datasets.composed import ComposedStore, Part, compose
from transferlab.datasets.glyphs import Glyphs
from transferlab.datasets.image_folder import ImageFolder
from transferlab.datasets.policy import ImagePolicy
from transferlab.datasets.splits import check_disjoint, make_splits
from transferlab.datasets.store import ImageStore, open_store
from transferlab.errors import UserError

Open = Callable[..., Part]


@pytest.fixture
def part(tmp_path: Path) -> Open:
    """Open letters as a part: ``part("ABC", corruption="noise")``."""

    def make(
        letters: str = "ABC", corruption: str = "none", groups: Any = None, **more: Any
    ) -> Part:
        options = {"per_class": 8, "size": 8} | more
        seed = options.pop("split_seed", 0)
        store = opened(Glyphs(letters=letters, **options), tmp_path, corruption)
        splits = make_splits(
            store.index, store.content, None, test=0.25, validation=0.25, split_seed=seed
        )
        return Part(store, splits, groups)

    return make


def opened(dataset: Any, folder: Path, corruption: str = "none") -> ImageStore:
    return open_store(
        dataset, spec=ImageSpec(8), policy=ImagePolicy(), corruption=corruption,
        corruption_seed=3, folder=folder / "cache",
    )  # fmt: skip


def test_images_and_labels_are_those_of_the_parts(part: Open) -> None:
    parts = {"a": part("ABC"), "b": part("CD", corruption="noise")}
    union = compose(parts)
    assert isinstance(union.store, ComposedStore)
    assert union.store.classes == ("a/A", "a/B", "a/C", "b/C", "b/D")
    assert union.store.bounds.tolist() == [0, 24, 40]
    assert len(union.store) == 40
    order = np.random.default_rng(0).permutation(40)
    images = union.store.images(order)
    for row, position in enumerate(order):
        name, first = ("a", 0) if position < 24 else ("b", 24)
        own = parts[name].store
        at = np.array([position - first])
        assert np.array_equal(images[row], own.images(at)[0])
        label = own.classes[int(own.labels[at[0]])]
        assert union.store.classes[int(union.store.labels[position])] == f"{name}/{label}"
        assert union.store.ids[position] == f"{name}/{own.ids[at[0]]}"


def test_classes_of_one_name_can_be_one_class(part: Open) -> None:
    union = compose({"a": part("ABC"), "b": part("CD", seed=1)}, join="by_name")
    assert union.store.classes == ("A", "B", "C", "D")
    assert np.bincount(union.store.labels).tolist() == [8, 8, 16, 8]


def test_a_part_keeps_its_splits_whatever_stands_beside_it(part: Open) -> None:
    a, b, c = part("ABC"), part("DE"), part("FGH")
    whole, without = compose({"a": a, "b": b, "c": c}), compose({"a": a, "c": c})
    shift = len(b.store)
    for name in ("train", "validation", "test"):
        mine = getattr(without.splits, name)
        kept = np.concatenate([mine[mine < 24], mine[mine >= 24] + shift])
        assert set(kept) <= set(getattr(whole.splits, name))
        assert len(getattr(whole.splits, name)) == len(mine) + len(getattr(b.splits, name))
    check_disjoint(whole.splits, whole.store.content)


def test_the_fingerprint_follows_from_the_parts_and_not_from_their_names(part: Open) -> None:
    a, b = part("ABC"), part("DE")
    known = compose({"a": a, "b": b}).store.fingerprint
    assert compose({"x": a, "y": b}).store.fingerprint == known
    others = [compose({"a": b, "b": a}), compose({"a": a, "b": b}, join="by_name"),
              compose({"a": a, "b": part("DE", corruption="noise")}),
              compose({"a": a, "b": part("DE", seed=1)})]  # fmt: skip
    assert len({known, *(union.store.fingerprint for union in others)}) == 5


def test_images_that_one_part_trains_on_and_another_holds_back(part: Open) -> None:
    parts = {"a": part("ABC"), "b": part("ABC", split_seed=1)}
    with pytest.raises(UserError, match=r"also in test.*`target\.duplicates=drop`"):
        compose(parts)
    union = compose(parts, duplicates="drop")
    check_disjoint(union.splits, union.store.content)
    assert len(union.splits.test) == len(parts["a"].splits.test) * 2  # only train gives way
    assert len(union.splits.train) < len(parts["a"].splits.train) * 2


@pytest.mark.parametrize(("kind", "same"), [("noise", False), ("permuted_pixels", False),
                                            ("random_labels", True)])  # fmt: skip
def test_an_image_that_is_no_more_the_same_is_no_copy(part: Open, kind: str, same: bool) -> None:
    parts = {"a": part("ABC"), "b": part("ABC", corruption=kind, split_seed=1)}
    if same:
        with pytest.raises(UserError, match="by content"):
            compose(parts)
    else:
        assert len(compose(parts).splits.train) == 2 * len(parts["a"].splits.train)


def test_grey_and_coloured_parts_go_together(part: Open, tmp_path: Path, make_folder: Any) -> None:
    coloured = opened(ImageFolder(make_folder(tmp_path / "rgb", {"cat": 8, "dog": 8})), tmp_path)
    store = ComposedStore({"grey": part("ABC").store, "rgb": coloured})
    assert store.shape == (3, 8, 8)
    images = store.images(np.array([0, 30]))
    assert images.shape == (2, 3, 8, 8)
    assert np.array_equal(images[0, 0], images[0, 2])  # grey, on all three channels
    assert not np.array_equal(images[1, 0], images[1, 2])


def test_groups_stay_apart_and_other_images_stand_alone(part: Open) -> None:
    a, b = part("ABC"), part("DE")
    assert compose({"a": a, "b": b}).groups is None
    bound = Part(a.store, a.splits, np.repeat(np.arange(12), 2))
    groups = compose({"a": bound, "b": b}).groups
    assert groups is not None
    assert np.array_equal(groups[:24], bound.groups)
    assert len(np.unique(groups)) == 12 + 16
    assert not set(groups[:24]) & set(groups[24:])


def test_copies_that_leave_a_class_without_training_images_are_told(part: Open) -> None:
    a = part("AB")
    swapped = Part(a.store, type(a.splits)(a.splits.test, a.splits.validation, a.splits.train, ""),
                   None)  # fmt: skip
    with pytest.raises(UserError, match="class 'a/A' has none to train"):
        compose({"a": a, "b": swapped}, duplicates="drop")


def test_an_unknown_join_is_named(part: Open) -> None:
    with pytest.raises(UserError, match="nearest: by_name"):
        ComposedStore({"a": part().store}, join="by_names")
