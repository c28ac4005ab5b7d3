"""Several datasets as one: each keeps its own splits, and their classes stand side by side."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transferlab.datasets.base import Index
from transferlab.datasets.overlap import without_copies
from transferlab.datasets.split_file import Splits, digest, parts_of
from transferlab.datasets.store import ImageStore
from transferlab.errors import UserError, nearest
from transferlab.records import sha256_record

Ints = NDArray[np.int64]
JOINS = ("disjoint", "by_name")


@dataclass(frozen=True)
class Part:
    """One dataset of a composed one.

    Attributes:
        store: its n images.
        splits: positions in it.
        groups: (n,) group of every image, or None.
    """

    store: ImageStore
    splits: Splits
    groups: Ints | None


class ComposedStore(ImageStore):
    """The images of several stores, one store after the other.

    Ids carry the name of their part. Grey images are repeated over three channels where another
    part is in colour.

    Args:
        parts: name -> store, of one image size.
        join: ``disjoint`` makes every part's classes classes of their own, ``PART/CLASS``;
            ``by_name`` makes classes of one name one class.

    Attributes:
        parts: the P names, in order.
        bounds: (P + 1,) the positions at which parts begin, and the end.

    Raises:
        UserError: ``join`` is unknown.
    """

    def __init__(self, parts: Mapping[str, ImageStore], join: str = "disjoint") -> None:
        if join not in JOINS:
            raise UserError(f"join={join}: no such way to join classes ({nearest(join, JOINS)}).")
        self.parts, self._stores = tuple(parts), tuple(parts.values())
        self.bounds: Ints = np.cumsum([0, *map(len, self._stores)])
        self.classes, self.labels = _joined(parts, join)
        self.ids = tuple(f"{name}/{i}" for name, store in parts.items() for i in store.ids)
        self.content = tuple(seen for store in self._stores for seen in store.shown)
        self.skipped = tuple(f"{name}/{i}" for name, store in parts.items() for i in store.skipped)
        channels = max(store.shape[0] for store in self._stores)
        self.shape = (channels, *self._stores[0].shape[1:])
        self.fingerprint = sha256_record([join, [store.fingerprint for store in self._stores]])
        self.index = Index(self.ids, self.labels, self.classes, stamp=self.fingerprint)

    @property
    def shown(self) -> tuple[str, ...]:
        """N names of what an image shows, corruption included."""
        return self.content

    def images(self, positions: Ints) -> NDArray[np.uint8]:
        """Read a batch into memory.

        Args:
            positions: (B,) in [0, N).

        Returns:
            (B, C, H, W) uint8, a copy that may be written to.
        """
        images = np.empty((len(positions), *self.shape), dtype=np.uint8)
        owner = np.searchsorted(self.bounds, positions, side="right") - 1
        for number in np.unique(owner):
            own = owner == number
            images[own] = self._stores[number].images(positions[own] - self.bounds[number])
        return images


def compose(
    parts: Mapping[str, Part], *, join: str = "disjoint", duplicates: str = "refuse"
) -> Part:
    """Make one dataset of several; what is train, validation and test in a part stays it.

    So a part's training images are the same whatever stands beside it, but for copies.

    Args:
        parts: name -> part, of one image size.
        join: see :class:`ComposedStore`.
        duplicates: of images that one part trains on and another holds back: ``refuse`` them, or
            ``drop`` the copies from train and validation.

    Returns:
        the union. An image without a group in a part is a group of its own where others have some.

    Raises:
        UserError: parts share images between train and test, or dropping them empties a class.
    """
    store = ComposedStore({name: part.store for name, part in parts.items()}, join)
    splits = [parts_of(part.splits) for part in parts.values()]
    starts = store.bounds[:-1]
    union = {
        name: np.concatenate([own[name] + s for own, s in zip(splits, starts, strict=True)])
        for name in ("train", "validation", "test")
    }
    union = without_copies(union, store.content, drop=duplicates == "drop")
    learnt = np.bincount(store.labels[union["train"]], minlength=len(store.classes))
    if not learnt.all():
        name = store.classes[int(learnt.argmin())]
        raise UserError(f"without copies of other parts' images, class {name!r} has none to train.")
    groups = _groups([part.groups for part in parts.values()], np.diff(store.bounds))
    return Part(store, Splits(**union, sha256=digest(union, groups)), groups)


def _joined(parts: Mapping[str, ImageStore], join: str) -> tuple[tuple[str, ...], Ints]:
    """Return the union's classes, in the order in which parts bring them, and all labels in it."""
    numbers: dict[str, int] = {}
    labels = []
    for name, store in parts.items():
        classes = [c if join == "by_name" else f"{name}/{c}" for c in store.classes]
        places = np.array([numbers.setdefault(c, len(numbers)) for c in classes], dtype=np.int64)
        labels.append(places[store.labels])
    return tuple(numbers), np.concatenate(labels)


def _groups(groups: list[Ints | None], sizes: Ints) -> Ints | None:
    if all(own is None for own in groups):
        return None
    found, free = [], 0
    for own, size in zip(groups, sizes, strict=True):
        numbers = np.arange(size, dtype=np.int64) if own is None else own
        found.append(numbers + free)
        free = int(found[-1].max()) + 1
    return np.concatenate(found)
