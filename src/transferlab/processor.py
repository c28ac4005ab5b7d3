"""How a process computes on the CPU: its threads, and memory that it keeps."""

import ctypes
import os
import sys
from functools import lru_cache

import torch

SETTINGS = {-1: 2**31 - 1, -2: 2**26, -3: 2**30}
"""M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD of glibc's malloc.h, in bytes."""
OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Variables by which a user sets them; who does is left alone."""


def set_up_cpu(threads: int | None) -> None:
    """Compute with so many threads (None or 0: as many as before), and keep freed memory."""
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Let glibc keep freed memory of up to 1 GiB a piece; return whether it does.

    It gives large pieces back to the system as soon as they are free. A training step on a CPU
    frees all of its activations, and the next one has every page of them handed out and zeroed
    anew. The process's peak stays what it was. Other systems' and libraries' allocators are left
    as they are.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in OWN):
        return False
    setter = getattr(ctypes.CDLL(None), "mallopt", None)
    taken = [setter(key, value) for key, value in SETTINGS.items()] if setter else [0]
    return all(taken)
