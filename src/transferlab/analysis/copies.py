"""The same work on many things by copies of this process, where that is quicker and safe."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

LEAST = 8
"""Things from which copies pay: a copy starts within milliseconds, what it made is sent back."""
_task: tuple[Callable[[Any], Any], Sequence[Any]]


def each(work: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """Return what work makes of each thing, in order.

    A copy has all that its work looks at, so nothing is sent to it. Only Linux can copy a process
    safely, and only one that PyTorch has not yet started threads in: elsewhere, or where there are
    few things or one core, this process does it all.

    Args:
        work: changes nothing that others look at; its result can be pickled.
        things: to work on.
    """
    global _task
    workers = min(len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1, len(things))
    if workers < 2 or len(things) < LEAST or "torch" in sys.modules:
        return [work(thing) for thing in things]
    _task = work, things
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        return pool.map(_one, range(len(things)), chunksize=1)


def _one(number: int) -> Any:
    work, things = _task
    return work(things[number])
