"""Three splits that never share an image or a group, drawn once and read by every process."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from transferlab.datasets.apportion import Draw, draw_share
from transferlab.datasets.base import SPLITS, Index
from transferlab.datasets.overlap import check_disjoint, number_contents, without_copies
from transferlab.datasets.seeding import generator
from transferlab.datasets.split_file import Splits, digest, read_splits, write_splits
from transferlab.errors import UserError, nearest

__all__ = ["Splits", "check_disjoint", "make_splits", "read_splits", "write_splits"]

DUPLICATES = ("refuse", "drop")
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Pool:
    """The arrays that drawing needs: what class each image has, and what it is tied to."""

    labels: Ints
    units: Ints
    index: Index


def make_splits(  # noqa: PLR0913  -- three arrays, and the settings by name
    index: Index,
    content: Sequence[str],
    groups: Ints | None,
    *,
    test: float,
    validation: float,
    max_validation: int = 2000,
    split_seed: int,
    validation_seed: int | None = None,
    duplicates: str = "refuse",
) -> Splits:
    """Make train, validation and test, honouring the splits that the data bring.

    An official test or validation split is used as it is; what is missing is drawn, stratified
    by class, with the images of one group and images of identical content on one side. Test
    depends on ``split_seed`` (and the data) only.

    Args:
        index: N images.
        content: N content hashes.
        groups: (N,) int64 group of each image, or None.
        test: share of the images to draw as test, in (0, 1).
        validation: share of the rest to draw as validation, in (0, 1).
        max_validation: images that a drawn validation split holds at most.
        split_seed: draws the splits.
        validation_seed: draws another validation split beside the same test split; None for the
            one that ``split_seed`` draws.
        duplicates: ``refuse`` official splits that share images, or ``drop`` the copies from
            train and validation.

    Returns:
        Positions of the index, sorted, three disjoint sets.

    Raises:
        UserError: a class has too few images or groups, a share is out of range, or official
            splits share images or groups.
    """
    _check_options(test, validation, max_validation, duplicates)
    pool = _Pool(index.labels, tie(content, groups), index)
    parts = _official(index)
    if index.splits is not None:
        parts = without_copies(parts, content, drop=duplicates == "drop")
        _check_groups(parts, groups)
    if not len(parts["test"]):
        draw = Draw(test, leave=1 if len(parts["validation"]) else 2)
        parts = _move(parts, "test", draw, pool, split_seed)
    if not len(parts["validation"]):
        draw = Draw(validation, leave=1, at_most=max_validation)
        own = () if validation_seed is None else (validation_seed,)
        parts = _move(parts, "validation", draw, pool, split_seed, *own)
    _check_classes(parts, pool)
    check_disjoint(parts, content)
    return Splits(parts["train"], parts["validation"], parts["test"], sha256=digest(parts, groups))


def tie(content: Sequence[str], groups: Ints | None) -> Ints:
    """Number the sets of images that must stay together.

    Args:
        content: N content hashes; equal ones are tied.
        groups: (N,) groups, or None; members of one are tied.

    Returns:
        (N,) int64 units: connected through any chain of equal contents and shared groups.
    """
    same = number_contents(content)
    if groups is None:
        return same
    members = np.unique(groups, return_inverse=True)[1]
    count = len(same)
    edges = (np.ones(count), (members, same + count))
    graph = coo_matrix(edges, shape=(2 * count, 2 * count))  # groups on one side, contents beyond
    component = connected_components(graph, directed=False)[1]
    return component[members].astype(np.int64)


def _check_options(test: float, validation: float, max_validation: int, duplicates: str) -> None:
    for name, share in (("test", test), ("validation", validation)):
        if not 0 < share < 1:
            raise UserError(f"`target.{name}={share}` must be a share between 0 and 1.")
    if max_validation < 1:
        raise UserError(f"`target.max_validation={max_validation}` must be 1 image or more.")
    if duplicates not in DUPLICATES:
        raise UserError(
            f"`target.duplicates={duplicates}` is unknown; {nearest(duplicates, DUPLICATES)}."
        )


def _official(index: Index) -> dict[str, Ints]:
    if index.splits is None:
        nothing = np.empty(0, dtype=np.int64)
        everything = np.arange(len(index), dtype=np.int64)
        return {"train": everything, "validation": nothing, "test": nothing}
    names = np.asarray(index.splits)
    parts = {name: np.flatnonzero(names == name).astype(np.int64) for name in SPLITS}
    if not len(parts["train"]):
        raise UserError(
            f"the dataset's official splits hold no train images, only "
            f"{', '.join(sorted(set(index.splits)))}. Add them, or give the data without splits."
        )
    return parts


def _move(
    parts: dict[str, Ints], name: str, draw: Draw, pool: _Pool, *seeds: int
) -> dict[str, Ints]:
    rest = parts["train"]
    random = generator(f"{name} split", *seeds)
    chosen = draw_share(pool.labels[rest], pool.units[rest], draw, random)
    return parts | {name: rest[chosen], "train": np.delete(rest, chosen)}


def _check_groups(parts: dict[str, Ints], groups: Ints | None) -> None:
    if groups is None:
        return
    held = {name: set(groups[part].tolist()) for name, part in parts.items()}
    for one, other in (("train", "test"), ("validation", "test"), ("train", "validation")):
        shared = held[one] & held[other]
        if shared:
            raise UserError(
                f"the official {one} and {other} splits share {len(shared)} groups. Mend the "
                "splits, or set `target.group_by=none` if these groups don't matter."
            )


def _check_classes(parts: dict[str, Ints], pool: _Pool) -> None:
    """Require every class in train, and in whatever was drawn from it where there is room."""
    official = set(pool.index.splits or ())
    size = len(pool.index.classes)
    for name in SPLITS:
        present = np.bincount(pool.labels[parts[name]], minlength=size) > 0
        drawn = name == "train" or name not in official
        if name == "validation" and len(parts[name]) < size:
            drawn = False  # fewer images than classes were asked for
        if not len(parts[name]) or (drawn and not present.all()):
            raise _too_few(name, int(np.argmin(present)), pool, official)


def _too_few(name: str, label: int, pool: _Pool, official: set[str]) -> UserError:
    needed = 3 - len(official & {"validation", "test"})
    free = np.ones(len(pool.labels), dtype=bool)
    if official:
        free = np.asarray(pool.index.splits) == "train"
    mine = free & (pool.labels == label)
    images, units = int(mine.sum()), len(np.unique(pool.units[mine]))
    have = f"{images} images" + (f" in {units} groups" if units < images else "")
    what = "groups" if units < images else "images"
    return UserError(
        f"class {pool.index.classes[label]!r} has {have} to draw from, which leaves none for "
        f"{name}; {needed} {what} or more of each class are needed. Add images, or leave the "
        "class out."
    )
