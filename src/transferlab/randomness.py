"""Randomness that is derived, never carried: a seed for every purpose, step and sample."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Derive a seed in [0, 2**63) for one purpose from a run's seed."""
    text = ":".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the generators that a step on a device draws from: the CPU's, and the device's own.

    ``torch.manual_seed`` gives the same numbers, but where PyTorch is built for accelerators that
    are not in use it keeps a stack trace for each of their kinds, at every call.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator of the CPU for a block, and put it back; no other is touched."""
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


def sample_uniforms(seed: int, step: int, items: Tensor, count: int) -> Tensor:
    """Draw numbers in [0, 1) that depend on (seed, step, item) alone.

    A sample's augmentation is thus the same whatever batch, rank or worker it falls into. The
    generator is splitmix64 over a counter (Steele et al., OOPSLA 2014).

    Args:
        seed: of the augmentation.
        step: optimiser step.
        items: (B,) int64 item positions.
        count: how many numbers each sample needs.

    Returns:
        (B, count) float32 on the items' device.
    """
    base = np.uint64(derive_seed(seed, "augmentation", step))
    positions = items.cpu().numpy().astype(np.uint64)
    with np.errstate(over="ignore"):
        key = _mix(positions + base)[:, None]
        counter = np.arange(1, count + 1, dtype=np.uint64)[None, :]
        bits = _mix(key + counter * np.uint64(0x9E3779B97F4A7C15))
    return torch.from_numpy((bits >> np.uint64(40)).astype(np.float32) / 2**24).to(items.device)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
