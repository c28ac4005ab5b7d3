"""Talk between the ranks of one run; in a run of one process each of these is the identity.

Every function here must be called by all ranks, in the same order.
"""

from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")


def world_size() -> int:
    """Return the number of ranks of this run."""
    return dist.get_world_size() if _joined() else 1


def first_rank() -> bool:
    """Say whether this process is the one that writes, once the ranks have met."""
    return dist.get_rank() == 0 if _joined() else True


def from_all(value: T) -> list[T]:
    """Return the value of every rank, in the order of ranks, on every rank.

    Args:
        value: anything that can be pickled; on an accelerator it travels over its own links.
    """
    if world_size() == 1:
        return [value]
    found: list[T | None] = [None] * world_size()
    dist.all_gather_object(found, value)
    return cast(list[T], found)


def average(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over ranks, all in one message per dtype and device.

    All ranks hold the same bits afterwards.
    """
    if world_size() == 1 or not tensors:
        return
    kinds = {(t.dtype, t.device) for t in tensors}
    for kind in sorted(kinds, key=str):
        own = [t for t in tensors if (t.dtype, t.device) == kind]
        flat = torch.cat([t.detach().reshape(-1) for t in own])
        dist.all_reduce(flat)
        flat /= world_size()
        for tensor, mean in zip(own, torch.split(flat, [t.numel() for t in own]), strict=True):
            tensor.detach().copy_(mean.view_as(tensor))


class Votes:
    """Find out at every step, without a wait, whether some rank raised its hand at the step before.

    The ballots travel between CPUs while the step computes, so that an accelerator is never
    waited for; all ranks learn of a raised hand at the start of the same step.
    """

    def __init__(self) -> None:
        self._group: Any = dist.new_group(backend="gloo") if world_size() > 1 else None
        self._cast: tuple[Tensor, Any] | None = None

    def ask(self, own: bool) -> bool:
        """Hand in this rank's ballot and say what the last ones came to; alone, what this one is.

        All ranks must call it equally often.
        """
        if self._group is None:
            return own
        before = self.settle()
        ballot = torch.tensor(int(own))
        work = dist.all_reduce(ballot, dist.ReduceOp.MAX, group=self._group, async_op=True)
        self._cast = (ballot, work)
        return before

    def settle(self) -> bool:
        """Wait for what was cast last, and say what it came to."""
        if self._cast is None:
            return False
        ballot, work = self._cast
        work.wait()
        self._cast = None
        return bool(ballot)

    def meet(self) -> None:
        """Wait until all ranks are here."""
        self.settle()
        if self._group is not None:
            dist.barrier(self._group)


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()
