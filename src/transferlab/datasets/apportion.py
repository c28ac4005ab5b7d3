"""Draw a stratified share of units, each unit whole: an image, or images that belong together."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """What a share may be.

    Attributes:
        share: of each class's images, in (0, 1).
        leave: units of each class that have to stay behind.
        at_most: images in all; None for no limit.
    """

    share: float
    leave: int
    at_most: int | None = None


def quotas(counts: Ints, draw: Draw) -> Ints:
    """Apportion a share over the classes by largest remainder, one image a class at the least.

    Args:
        counts: (C,) images of each class.
        draw: the share and its limit.

    Returns:
        (C,) images to draw of each class; their sum keeps within ``at_most``.
    """
    total = int(counts.sum())
    wanted = round(draw.share * total)
    if draw.at_most is not None:
        wanted = min(wanted, draw.at_most)
    exact = counts * (wanted / total) if total else counts.astype(float)
    floor = np.floor(exact).astype(np.int64)
    if draw.at_most is None or draw.at_most >= np.count_nonzero(counts):
        floor = np.maximum(floor, np.minimum(counts, 1))
    missing = max(0, wanted - int(floor.sum()))
    order = np.argsort(-(exact - floor), kind="stable")
    floor[order[:missing]] += 1
    return _within(floor, draw.at_most)


def _within(quota: Ints, at_most: int | None) -> Ints:
    """Take back from the largest classes what the minimum of one a class added."""
    excess = 0 if at_most is None else int(quota.sum()) - at_most
    for _ in range(max(0, excess)):
        quota[np.argmax(quota)] -= 1
    return quota


def draw_share(labels: Ints, units: Ints, draw: Draw, random: np.random.Generator) -> Ints:
    """Draw units until every class is as near to its quota as whole units allow.

    Args:
        labels: (n,) class of each image, in [0, C).
        units: (n,) the unit that each image belongs to, any integers.
        draw: how much.
        random: orders the units.

    Returns:
        Positions among the n, sorted. A class with too few units may be missing; the caller
        checks.
    """
    quota = quotas(np.bincount(labels), draw)
    _, unit, sizes = np.unique(units, return_inverse=True, return_counts=True)
    order = random.permutation(len(sizes))
    if sizes.max(initial=1) == 1:
        return _draw_images(labels, order, quota, draw.leave)
    taken = _draw_units(labels, unit, order, quota, draw)
    return np.flatnonzero(np.isin(unit, taken)).astype(np.int64)


def _draw_images(labels: Ints, order: Ints, quota: Ints, leave: int) -> Ints:
    """Take the first of each class in a random order: units of one image, without a loop."""
    by_class = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels, minlength=len(quota))
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    rank = np.arange(len(labels)) - starts
    limit = np.minimum(quota, np.maximum(sizes - leave, 0))
    return np.sort(by_class[rank < limit[labels[by_class]]])


def _draw_units(labels: Ints, unit: Ints, order: Ints, quota: Ints, draw: Draw) -> Ints:
    tray = _Tray(labels, unit, quota, draw)
    for number in order.tolist():
        if tray.nearer(number):
            tray.take(number)
    lacking = [label for label in np.flatnonzero(quota).tolist() if not tray.got[label]]
    small_first = order[np.argsort(np.bincount(unit)[order], kind="stable")]
    for label in lacking:  # whole units were all too big: the smallest is nearest
        holders = np.unique(unit[labels == label])
        for number in small_first[np.isin(small_first, holders)].tolist():
            if not tray.got[label] and tray.spares(number):
                tray.take(number)
    return np.array(sorted(tray.taken), dtype=np.int64)


class _Tray:
    """What is taken so far, and whether one more unit would bring it nearer to the quota."""

    def __init__(self, labels: Ints, unit: Ints, quota: Ints, draw: Draw) -> None:
        self.members = labels[np.argsort(unit, kind="stable")].tolist()  # unit after unit
        self.ends = np.cumsum(np.bincount(unit)).tolist()
        pairs = np.unique(np.stack([unit, labels]), axis=1)
        self.left = np.bincount(pairs[1], minlength=len(quota)).tolist()  # units of each class
        self.quota, self.leave = quota.tolist(), draw.leave
        self.room = len(labels) if draw.at_most is None else draw.at_most
        self.got = [0] * len(quota)
        self.taken: set[int] = set()

    def holds(self, number: int) -> Counter[int]:
        return Counter(self.members[self.ends[number - 1] if number else 0 : self.ends[number]])

    def spares(self, number: int) -> bool:
        held = self.holds(number)
        enough = all(self.left[label] > self.leave for label in held)
        return number not in self.taken and enough and held.total() <= self.room

    def nearer(self, number: int) -> bool:
        change = 0
        for label, count in self.holds(number).items():
            before = self.got[label] - self.quota[label]
            change += (before + count) ** 2 - before**2
        return change < 0 and self.spares(number)

    def take(self, number: int) -> None:
        held = self.holds(number)
        self.taken.add(number)
        self.room -= held.total()
        for label, count in held.items():
            self.got[label] += count
            self.left[label] -= 1
