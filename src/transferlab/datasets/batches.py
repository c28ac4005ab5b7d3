"""Which images a batch holds: pure functions of the seed, the step and a rank's share."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from transferlab.datasets.store import ImageStore
from transferlab.randomness import derive_seed

Positions = NDArray[np.int64]


class Share(NamedTuple):
    """One rank's share of every batch, and the parts in which it takes it.

    Attributes:
        rank: this process, in [0, ranks).
        ranks: how many processes train one run.
        parts: micro-batches per optimiser step.
    """

    rank: int = 0
    ranks: int = 1
    parts: int = 1


class Shuffled(Dataset[dict[str, Any]]):
    """Every micro-batch of a run, as a pure function of (seed, optimiser step, share).

    Step t takes the next ``batch_size`` images of an endless stream of epochs, each in an order
    of its own: a run of any length sees every image equally often, to within one, and a batch may
    span two epochs. Rank r of W takes every W-th image of it from r on, and of these, micro-batch
    m of A takes every A-th from m on: together they are the batch, whatever W and A are.

    Args:
        store: the images, or None where they already lie on the device.
        positions: (n,) training items.
        batch_size: images per optimiser step, over all ranks and micro-batches.
        steps: the budget.
        seed: of the order.
        share: what of it this process takes; ``ranks * parts`` divides ``batch_size``.

    Raises:
        ValueError: a batch that can't be shared out evenly (the configuration's check says it
            to the user, with the remedy).
    """

    def __init__(
        self,
        store: ImageStore | None,
        positions: Positions,
        batch_size: int,
        steps: int,
        seed: int,
        share: Share | None = None,
    ) -> None:
        share = share or Share()
        if batch_size % (share.ranks * share.parts):
            raise ValueError(f"{batch_size} images can't be shared out evenly over {share}")
        self.store, self.positions, self.share = store, positions, share
        self.batch_size, self.steps, self.seed = batch_size, steps, seed

    def __len__(self) -> int:
        """Return the number of micro-batches of the whole run."""
        return self.steps * self.share.parts

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return micro-batch ``index``: part ``index % parts`` of step ``index // parts``."""
        rank, ranks, parts = self.share
        step, part = divmod(index, parts)
        begin = step * self.batch_size
        stream = np.arange(begin, begin + self.batch_size)[rank::ranks][part::parts]
        epochs, chosen = _stream(self.seed, stream, len(self.positions))
        batch = _fetch(self.store, self.positions[chosen], step, part)
        return batch | {"epochs": torch.from_numpy(epochs)}


class From(Sampler[int]):
    """The numbers from ``start`` up to ``length``, under the length of them all.

    Lightning goes on counting where a resumed run stopped, but serves its loader from the
    beginning; the full length keeps its idea of the last batch right.
    """

    def __init__(self, start: int, length: int) -> None:
        self.start, self.length = start, length

    def __len__(self) -> int:
        """Return the number of micro-batches of the whole run."""
        return self.length

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers of the micro-batches still to come."""
        return iter(range(self.start, self.length))


class InOrder(Dataset[dict[str, Any]]):
    """Items in their own order, for evaluation; rank r of W takes every W-th from r on.

    All ranks have the same number of batches, since every forward pass through DDP is a meeting
    of all ranks; where a rank is out of items, one of its items (or the first of all) is served
    again. Whoever gathers counts each item once.
    """

    def __init__(
        self,
        store: ImageStore | None,
        positions: Positions,
        batch_size: int,
        share: Share | None = None,
    ) -> None:
        rank, ranks, _ = share or Share()
        own = positions[rank::ranks]
        self.batches = -(-len(positions) // (batch_size * ranks))
        self.positions = own if len(own) or not len(positions) else positions[:1]
        self.store, self.batch_size = store, batch_size

    def __len__(self) -> int:
        """Return the number of batches, equal on all ranks."""
        return self.batches

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return batch ``index``; the last ones may be smaller."""
        if index >= len(self):
            raise IndexError(index)
        start = index * self.batch_size
        chosen = self.positions[start : start + self.batch_size]
        return _fetch(self.store, chosen if len(chosen) else self.positions[-1:], -1)


def _fetch(
    store: ImageStore | None, positions: Positions, step: int, micro: int = 0
) -> dict[str, Any]:
    """Return one batch: of an optimiser step and its micro-batch, or with step -1 to evaluate."""
    batch: dict[str, Any] = {"positions": torch.from_numpy(positions), "step": step, "micro": micro}
    if store is not None:
        batch["images"] = torch.from_numpy(store.images(positions))
    return batch


def _stream(seed: int, numbers: Positions, count: int) -> tuple[Positions, Positions]:
    """Return the epochs, and which of ``count`` items stand, at places of the endless stream."""
    epochs, within = np.divmod(numbers, count)
    chosen = np.empty_like(numbers)
    for epoch in np.unique(epochs):
        own = epochs == epoch
        chosen[own] = _order(seed, int(epoch), count)[within[own]]
    return epochs, chosen


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> Positions:
    """Return the order of an epoch's items, from (seed, epoch) alone."""
    return np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(count)
