"""Lightning's Trainer as a configuration asks for it, without what nobody can act on."""

import logging
import math
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig

from transferlab.callbacks.average_buffers import AverageBuffers
from transferlab.callbacks.replica_guard import ReplicaGuard
from transferlab.machine import ranks


def make_trainer(
    cfg: DictConfig, callbacks: list[Any], loggers: list[Logger], directory: Path
) -> Trainer:
    """Return Lightning's Trainer for one fit, as the configuration says."""
    steps, parts = int(cfg.budget.steps), int(cfg.trainer.accumulate)
    watched = cfg.purpose == "single" and sys.stderr.isatty()
    with quiet():
        return Trainer(
            accelerator=cfg.trainer.accelerator,
            **_ranks(cfg.trainer.devices, cfg.trainer.num_nodes),
            precision=cfg.trainer.precision,
            max_steps=steps,
            max_epochs=-1,
            accumulate_grad_batches=parts,
            val_check_interval=max(steps // max(cfg.trainer.validations, 1), 1) * parts,
            check_val_every_n_epoch=None,
            callbacks=callbacks,
            logger=loggers or False,
            default_root_dir=directory,
            gradient_clip_val=cfg.trainer.gradient_clip,
            deterministic=cfg.trainer.deterministic,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=watched,
        )


def _ranks(devices: int, nodes: int) -> dict[str, Any]:
    """Return what the Trainer is told of its ranks, which are started from outside.

    The environment is always named: one that Lightning found, SLURM's, would bring its own
    handler of signals, which saves inside the handler.
    """
    if devices * nodes == 1:
        return {"devices": 1, "plugins": [LightningEnvironment()]}
    # norm statistics are averaged instead: rank 0's would hide that the others' differ
    strategy = DDPStrategy(broadcast_buffers=False)
    return {
        "devices": devices, "num_nodes": nodes,
        "strategy": strategy, "plugins": [TorchElasticEnvironment()],
    }  # fmt: skip


def replicas(cfg: DictConfig, images: int) -> tuple[list[Callback], list[Callback]]:
    """Return what keeps several ranks' replicas equal, and what proves it: first and last."""
    if ranks(cfg.trainer) == 1:
        return [], []
    every = cfg.trainer.replica_check
    if every == "epoch":
        every = math.ceil(images / cfg.batch_size)
    return [AverageBuffers()], [ReplicaGuard(every)] if every else []


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what the user can't act on: Lightning's banners and hints."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    before = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn Lightning's exit(1) after Ctrl-C back into the KeyboardInterrupt that it was."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            if handler is not None:
                signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from error
        raise
