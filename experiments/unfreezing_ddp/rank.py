"""One rank of one job of run.py: trains an arm and reports, from rank 0, as JSON.

A gap job compares the ranks' weights after every epoch; a time job measures every step of one
epoch, whose first half trains the head alone and whose second half trains all, for several arms
in turn in the same two processes; the first arm changes from repetition to repetition.
"""

import argparse
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import lightning.pytorch as pl
import timm
import torch
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, TensorDataset

CLASSES, RATE = 10, 1e-3
WARM = 3  # steps of a phase that are not timed


class Classifier(pl.LightningModule):
    """A plain module, as a user writes it: a timm backbone, a linear head, AdamW.

    Args:
        name: of the timm model.
        head_only: give the optimizer the head alone, as Lightning's manual does.
    """

    def __init__(self, name: str, head_only: bool = False) -> None:
        super().__init__()
        self.backbone = timm.create_model(name, num_classes=0)
        self.head = nn.Linear(self.backbone.num_features, CLASSES)
        self.head_only = head_only

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self.head(self.backbone(images)), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = self.head.parameters() if self.head_only else self.parameters()
        return torch.optim.AdamW([p for p in trained if p.requires_grad], lr=RATE)


class Gaps(pl.Callback):
    """Compares the ranks' weights after every epoch."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        row: dict[str, Any] = {"epoch": trainer.current_epoch}
        for part in ("backbone", "head"):
            own = torch.cat([p.detach().flatten() for p in getattr(pl_module, part).parameters()])
            all_ranks = [torch.empty_like(own) for _ in range(trainer.world_size)]
            distributed.all_gather(all_ranks, own)
            stacked = torch.stack(all_ranks).double()
            sums = stacked.sum(1)
            row[f"{part}_max_gap"] = float((stacked.amax(0) - stacked.amin(0)).max())
            row[f"{part}_sum_gap"] = float(sums.max() - sums.min())
        row["trained"] = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        self.rows.append(row)


class Clock(pl.Callback):
    """Times every step from the end of the one before it, so a thaw counts to its step.

    Taken are seconds on the wall, and CPU seconds of this rank with all its threads, which tell
    less of what else the machine does.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu: list[float] = []
        self.last = (0.0, 0.0)

    def on_train_batch_end(self, *_: Any) -> None:
        now = (time.perf_counter(), time.process_time())
        self.seconds.append(now[0] - self.last[0])
        self.cpu.append(now[1] - self.last[1])
        self.last = now


class FrozenAfterWrapping(pl.Callback):
    """The other cure: wrap what trains one day, then freeze, and let DDP look for the unused."""

    def __init__(self, thaw_at: int) -> None:
        self.thaw_at = thaw_at

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        frozen = trainer.global_step < self.thaw_at
        if trainer.global_step in (0, self.thaw_at):
            pl_module.backbone.requires_grad_(not frozen)
            pl_module.backbone.train(not frozen)


def fts_schedule(name: str) -> dict[int, dict[str, Any]]:
    """One layer group more at every epoch, from the top: what ours does on its own."""
    groups = stages(name)
    return {
        k: {"params": [group], "max_transition_epoch": k + 1, "lr": RATE}
        for k, group in enumerate(["head.*", *groups])
    }


def stages(name: str) -> list[str]:
    """The backbone's stages as patterns, top first."""
    model = timm.create_model(name, num_classes=0)
    tops = [n for n, _ in model.named_children() if n.startswith("layer")][::-1]
    rest = "|".join(
        n for n, c in model.named_children() if n not in tops and any(True for _ in c.parameters())
    )
    return [*(rf"backbone\.{n}\..*" for n in tops), rf"backbone\.({rest})\..*"]


def arm(name: str, model: str, thaw_at: int, root: str) -> tuple[list[pl.Callback], str, bool]:
    """Return the callbacks of an arm, its Lightning strategy, and whether it starts head-only."""
    if name == "lightning":
        from lightning.pytorch.callbacks import BackboneFinetuning

        # at the head's rate from the start, as in the other arms
        return (
            [BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_ratio_lr=1.0)],
            "ddp",
            True,
        )
    if name == "finetuning-scheduler":
        from finetuning_scheduler import FinetuningScheduler

        callback = FinetuningScheduler(
            ft_schedule=fts_schedule(model),
            epoch_transitions_only=True,
            restore_best=False,
            log_dir=root,
            logging_level=logging.ERROR,
        )
        return [callback], "ddp", False
    if name == "transferlab":
        from transferlab.callbacks.gradual_unfreezing import GradualUnfreezing

        return [GradualUnfreezing(every={"epochs": 1})], "ddp", False
    if name == "rewrap":
        from transferlab.callbacks.phases import Phases

        first = {"train": ["head"], "until": {"steps": thaw_at}}
        return [Phases({"head": first, "all": {"train": ["all"]}})], "ddp", False
    if name == "find_unused":
        return [FrozenAfterWrapping(thaw_at)], "ddp_find_unused_parameters_true", False
    return [], "ddp", False  # "none": everything trains throughout


def fit(name: str, arguments: argparse.Namespace, probe: pl.Callback) -> None:
    with quiet(), tempfile.TemporaryDirectory() as root:
        _fit(name, arguments, probe, root)


def _fit(name: str, arguments: argparse.Namespace, probe: pl.Callback, root: str) -> None:
    pl.seed_everything(0, verbose=False)
    callbacks, strategy, head_only = arm(name, arguments.model, thaw_step(arguments), root)
    model = Classifier(arguments.model, head_only)
    count = 2 * arguments.batch * arguments.steps  # of both ranks
    images = torch.randn(count, 3, arguments.pixels, arguments.pixels)
    loader = DataLoader(
        TensorDataset(images, torch.arange(count) % CLASSES),
        batch_size=arguments.batch,
        shuffle=True,
    )
    pl.Trainer(
        max_epochs=arguments.epochs,
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        callbacks=[*callbacks, probe],
        default_root_dir=root,
        logger=False,
        enable_checkpointing=name == "finetuning-scheduler",
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(model, loader)


def thaw_step(arguments: argparse.Namespace) -> int:
    return arguments.steps if arguments.job == "gap" else arguments.steps // 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=["gap", "time"])
    parser.add_argument("--arms", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", required=True)
    for name in ("epochs", "steps", "batch", "pixels", "repetitions"):
        parser.add_argument(f"--{name}", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = gaps(arguments) if arguments.job == "gap" else times(arguments)
    if distributed.get_rank() == 0:
        arguments.out.write_text(json.dumps(rows), encoding="utf-8")
    distributed.destroy_process_group()


def gaps(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for name in arguments.arms:
        probe = Gaps()
        fit(name, arguments, probe)
        rows += [{"arm": name, "version": peer_version(name)} | row for row in probe.rows]
    return rows


def times(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    thaw_at = thaw_step(arguments)
    for repetition in range(-1, arguments.repetitions):  # -1 warms the processes up
        first = repetition % len(arguments.arms)
        for name in (*arguments.arms[first:], *arguments.arms[:first]):
            clock = Clock()
            fit(name, arguments, clock)
            row: dict[str, Any] = {"arm": name, "repetition": repetition}
            for unit, taken in (("seconds", clock.seconds), ("cpu_seconds", clock.cpu)):
                row[f"frozen_{unit}"] = median(taken[WARM:thaw_at])
                row[f"thaw_{unit}"] = taken[thaw_at]
                row[f"thawed_{unit}"] = median(taken[thaw_at + WARM :])
            rows += [row] if repetition >= 0 else []
    return rows


def peer_version(name: str) -> str:
    return version(name) if name in ("lightning", "finetuning-scheduler", "transferlab") else ""


@contextmanager
def quiet() -> Iterator[None]:
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


if __name__ == "__main__":
    main()
