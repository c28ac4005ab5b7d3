"""What a run asks of the machine: its accelerator, its devices, a compiler."""

import os
import shutil
from typing import Any

import torch
from lightning.pytorch.accelerators import AcceleratorRegistry
from omegaconf import DictConfig

from transferlab.cluster import cluster
from transferlab.errors import UserError


def check_machine(cfg: DictConfig) -> None:
    """Check a configuration's trainer against the machine that is to run it.

    Raises:
        UserError: names the key, what came in, what the machine has and what to do.
    """
    if not cluster.elsewhere:  # else the jobs' machines count, which this one can't look at
        _check_accelerator(cfg.trainer.accelerator)
        _check_devices(cfg.trainer)
    _check_replica_check(cfg.trainer.replica_check)
    _check_batches(cfg)
    _check_execution(cfg.trainer)
    _check_clipping(cfg)


def ranks(trainer: DictConfig) -> int:
    """Return how many processes a run trains on, over all its nodes."""
    return int(trainer.devices) * int(trainer.num_nodes)


def _check_accelerator(name: str) -> None:
    """Ask Lightning whether the machine has the accelerator."""
    kinds = ("cuda", "mps") if name == "gpu" else (name,)
    registry: Any = AcceleratorRegistry
    if name != "auto" and not any(registry[kind]["accelerator"].is_available() for kind in kinds):
        raise UserError(
            f"trainer.accelerator={name}: this machine has none. Set trainer.accelerator=auto."
        )


def _check_devices(trainer: DictConfig) -> None:
    """Count the nodes and devices that a run asks for.

    Numbers alone are taken, never ``auto``: how many there are is part of a run's identity.
    """
    if int(trainer.num_nodes) > 1:
        raise UserError(
            f"trainer.num_nodes={trainer.num_nodes}: several machines are started by SLURM alone. "
            "Add hydra/launcher=slurm, or set trainer.num_nodes=1."
        )
    count = int(trainer.devices)
    on_gpus = trainer.accelerator in ("gpu", "cuda") or (
        trainer.accelerator == "auto" and torch.cuda.is_available()
    )
    there = torch.cuda.device_count() if on_gpus else max(os.cpu_count() or 1, 2)
    if count > 1 and count > there:
        what = "GPUs" if on_gpus else "processes on the CPU at the most"
        raise UserError(
            f"trainer.devices={count}: this machine has {there} {what}. Set trainer.devices to "
            f"1..{there}" + (", or trainer.accelerator=cpu." if on_gpus else ".")
        )


def _check_replica_check(every: object) -> None:
    """Look at how often the replicas of a run are compared."""
    whole = isinstance(every, int) and not isinstance(every, bool) and every >= 1
    if not (every is None or every == "epoch" or whole):
        raise UserError(
            f"trainer.replica_check={every}: expected epoch, a number of optimiser steps, or null."
        )


def _check_batches(cfg: DictConfig) -> None:
    """Ask that a batch can be shared out evenly over devices and micro-batches."""
    devices, accumulate = ranks(cfg.trainer), int(cfg.trainer.accumulate)
    parts = devices * accumulate
    shared = "trainer.devices" + (" x trainer.num_nodes" if cfg.trainer.num_nodes > 1 else "")
    sizes = {"batch_size": int(cfg.batch_size)}
    if cfg.source.kind == "dataset" and cfg.source.pretrain is not None:
        sizes["source.pretrain.batch_size"] = int(cfg.source.pretrain.batch_size)
    for key, size in sizes.items():
        if size % parts:
            near = [n for n in (size // parts * parts, -(-size // parts) * parts) if n]
            raise UserError(
                f"{key}={size} can't be shared out evenly over {devices} x {accumulate} parts "
                f"({shared} x trainer.accumulate). Set {key} to "
                f"{' or '.join(map(str, near))}."
            )


def _check_execution(trainer: DictConfig) -> None:
    """Look for what the ways of computing a step need: a compiler, several GPUs."""
    on_cpu = trainer.accelerator == "cpu" or (
        trainer.accelerator == "auto" and not (torch.cuda.is_available() or cluster.elsewhere)
    )
    if trainer.sync_norms and (on_cpu or ranks(trainer) == 1):
        lack = (
            "batch norms on the CPU can't be synchronised" if on_cpu else "one device has no others"
        )
        raise UserError(
            f"trainer.sync_norms=true: {lack}. Set trainer.sync_norms=false, or train on several "
            "GPUs."
        )
    compilers = (os.environ.get("CXX"), "g++", "clang++", "c++", "cl")
    if trainer.compile and on_cpu and not any(c and shutil.which(c) for c in compilers):
        raise UserError(
            "trainer.compile=true: torch.compile needs a C++ compiler, and this machine has none "
            "on its PATH. Install g++, or set trainer.compile=false."
        )


def _check_clipping(cfg: DictConfig) -> None:
    """Refuse to clip gradients that only the optimizer would bring to scale, within its step."""
    trainer = cfg.trainer
    if trainer.precision == "16-mixed" and trainer.gradient_clip and cfg.optimizer.get("fused"):
        raise UserError(
            f"trainer.gradient_clip={trainer.gradient_clip}: with trainer.precision=16-mixed a "
            "fused optimizer unscales the gradients inside its step, after the clipping. Set "
            "optimizer.fused=false, or trainer.precision=bf16-mixed."
        )
