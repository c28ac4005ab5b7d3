"""Proof that the ranks train one model: replicas that drift apart end the run."""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from transferlab.collectives import from_all
from transferlab.errors import RunError


class ReplicaGuard(Callback):
    """Compare all parameters and buffers over ranks, bit for bit, every few optimiser steps.

    A parameter that thaws after the model was wrapped is silently left out of gradient exchange
    by ``DistributedDataParallel``; metrics still look plausible then. With one process it does
    nothing. It must stand behind callbacks that change weights or buffers.

    Args:
        every: optimiser steps between two comparisons; the end of training is one more.

    Raises:
        RunError: replicas differ; on all ranks alike, so that none waits for another.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take note of the step at which this process starts."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare if the optimiser has taken a step that is due."""
        step = trainer.global_step
        if step != self._step and step % self.every == 0:
            check_replicas(pl_module, step)
        self._step = step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare what was trained."""
        check_replicas(pl_module, trainer.global_step)


def check_replicas(module: nn.Module, step: int) -> None:
    """Raise a RunError unless every parameter and buffer holds the same bits on all ranks.

    Args:
        module: the replica of this rank.
        step: optimiser steps taken, for the message.
    """
    tensors = dict(_tensors(module))
    replicas = from_all({name: checksum(tensor) for name, tensor in tensors.items()})
    names = list(dict.fromkeys(name for replica in replicas for name in replica))
    differing = [n for n in names if len({replica.get(n) for replica in replicas}) > 1]
    if not differing:
        return
    first = differing[0]
    gap = _gap(from_all(tensors[first].detach().cpu() if first in tensors else None))
    raise RunError(
        f"replicas differ after optimiser step {step}: {first} by {gap} between ranks, and "
        f"{len(differing) - 1} more of {len(names)} tensors. Gradients or buffers were not "
        "exchanged; the weights are of no use."
    )


def checksum(tensor: Tensor) -> str:
    """Return a hash of a tensor's type, shape and bits; NaN equals itself, 0 is not -0."""
    plain = tensor.detach().cpu().contiguous()
    found = hashlib.blake2b(f"{plain.dtype} {tuple(plain.shape)}".encode(), digest_size=16)
    found.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _gap(replicas: list[Tensor | None]) -> str:
    """Return the largest distance of any replica's values from rank 0's."""
    reference, *others = replicas
    comparable = [o for o in others if o is not None and reference is not None]
    if reference is None or len(comparable) < len(others):
        return "its being there"
    if any(other.shape != reference.shape for other in comparable):
        return "shape"
    near = reference.detach().double()
    gaps = [(other.detach().double() - near).abs().max() for other in comparable]
    return f"{float(max(gaps)):.3g}"
