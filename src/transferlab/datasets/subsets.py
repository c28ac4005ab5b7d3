"""Few-shot and fractional subsets: stratified, nested, one for each replicate."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from transferlab.datasets.seeding import generator
from transferlab.errors import UserError

Ints = NDArray[np.int64]


def draw_subset(
    labels: Ints,
    positions: Ints,
    groups: Ints | None,
    *,
    shots: int | None,
    fraction: float | None,
    seed: int,
    classes: Sequence[str] | None = None,
) -> Ints:
    """Draw the training subset of a replicate.

    The items of each class are put into one random order by (seed, class), and the subset takes
    the first ones of it. So subsets of one seed are nested whatever their sizes, shots and
    fractions alike, and a class's draw doesn't depend on the other classes.

    Args:
        labels: (N,) class of every image.
        positions: (n,) the images to draw from, such as the training split.
        groups: (N,) group of every image, or None; with groups, a shot is a group.
        shots: items a class; None for no such limit.
        fraction: share of each class's items in (0, 1], rounded, one at the least; None for no
            such limit.
        seed: of the replicate.
        classes: C class names, for messages.

    Returns:
        Sorted positions; all of them when neither limit is given.

    Raises:
        UserError: both limits are given, one is out of range, a class has fewer items than
            shots, or shots are asked of groups that hold several classes.
    """
    _check_limits(shots, fraction)
    if shots is None and fraction is None:
        return np.sort(positions).astype(np.int64)
    items = positions if groups is None else groups[positions]
    _, item, sizes = np.unique(items, return_inverse=True, return_counts=True)
    owner = _owners(labels[positions], item, classes, strict=shots is not None)
    chosen = []
    for label in np.unique(owner):
        mine = np.flatnonzero(owner == label)
        size = _size(len(mine), shots, fraction)
        if size > len(mine):
            raise _too_many(int(shots or 0), owner, classes, grouped=bool(sizes.max() > 1))
        order = generator("target subset", seed, int(label)).permutation(len(mine))
        chosen.append(mine[order[:size]])
    return np.sort(positions[np.isin(item, np.concatenate(chosen))]).astype(np.int64)


def _check_limits(shots: int | None, fraction: float | None) -> None:
    if shots is not None and fraction is not None:
        raise UserError(
            f"`target.shots={shots}` and `target.fraction={fraction}` exclude each other; "
            "set one of them to null."
        )
    if shots is not None and shots < 1:
        raise UserError(f"`target.shots={shots}` must be 1 or more, or null for all images.")
    if fraction is not None and not 0 < fraction <= 1:
        raise UserError(f"`target.fraction={fraction}` must lie in (0, 1].")


def _size(items: int, shots: int | None, fraction: float | None) -> int:
    return shots if shots is not None else max(1, round((fraction or 1.0) * items))


def _owners(labels: Ints, item: Ints, classes: Sequence[str] | None, *, strict: bool) -> Ints:
    """Give each item its class: the commonest in it, or the only one if ``strict``.

    Args:
        labels: (n,) class of each image.
        item: (n,) in [0, I), the item that each image belongs to.
        classes: names for messages.
        strict: refuse items of several classes.

    Returns:
        (I,) int64.
    """
    base = int(labels.max(initial=0)) + 1
    pairs, counts = np.unique(item * base + labels, return_counts=True)
    holder, held = pairs // base, pairs % base
    kinds = np.bincount(holder)
    mixed = np.flatnonzero(kinds > 1)
    if strict and len(mixed):
        inside = [_name(int(label), classes) for label in held[holder == mixed[0]]]
        raise UserError(
            f"{len(mixed)} of {len(kinds)} groups hold images of several classes (one holds "
            f"{', '.join(inside[:3])}), so a number of groups a class can't be drawn. Use "
            "`target.fraction` instead of `target.shots`."
        )
    commonest_first = np.lexsort((held, -counts, holder))
    firsts = np.cumsum(kinds) - kinds
    owner: Ints = held[commonest_first][firsts]
    return owner


def _too_many(
    shots: int, owner: Ints, classes: Sequence[str] | None, *, grouped: bool
) -> UserError:
    counts = np.bincount(owner)
    least = int(np.where(counts > 0, counts, counts.max()).argmin())
    what = "groups" if grouped else "images"
    return UserError(
        f"`target.shots={shots}`, but class {_name(least, classes)!r} has only {counts[least]} "
        f"{what} in the training split. The largest possible is `target.shots={counts[least]}`."
    )


def _name(label: int, classes: Sequence[str] | None) -> str:
    return str(label) if classes is None else classes[label]
