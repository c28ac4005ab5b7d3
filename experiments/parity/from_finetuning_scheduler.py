"""finetuning-scheduler: its implicit schedule, and explicit ones under three schedulers."""

import logging
import tempfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import module
import tiny
import traces
import yaml
from finetuning_scheduler import FinetuningScheduler, FTSEarlyStopping
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, StepLR
from torch.utils.data import DataLoader

STEPS = 3  # an epoch
RATE, BASE_MAX_LR = 1e-3, 1e-5
PHASES = {
    0: {"params": ["head.*"], "max_transition_epoch": 2},
    1: {"params": [r"backbone\.layer4\..*"], "max_transition_epoch": 4, "lr": 5e-4},
    2: {"params": [r"backbone\.layer[23]\..*"], "max_transition_epoch": 5, "lr": 1e-4},
    3: {"params": [r"backbone\.(layer1|conv1|bn1)\..*"], "max_transition_epoch": 6},
}
STEP_LR = {"step_size": 1, "gamma": 0.7}
SCHEDULERS: dict[str, tuple[module.Scheduler | None, dict[str, Any]]] = {
    "constant": (None, {}),
    "step": (lambda optimizer: StepLR(optimizer, **STEP_LR), {"StepLR": STEP_LR}),
    "lambda": (
        lambda optimizer: LambdaLR(optimizer, lambda epoch: 0.9**epoch),
        {"LambdaLR": "0.9 ** epoch", "apply_lambdas_new_pgs": True},
    ),
}


def fit(
    model: nn.Module,
    loader: DataLoader[Any],
    epochs: int,
    scheduler: module.Scheduler | None = None,
    schedule: dict[int, Any] | None = None,
) -> tuple[traces.Tracer, dict[int, Any]]:
    """Train, and return the trace and the schedule that the peer followed.

    Without a schedule phases end on a plateau (patience 1 of a validation loss that stands
    still), with one at its epochs.
    """
    pl.seed_everything(0, verbose=False)
    traced = module.Traced(model, RATE, scheduler)
    with tempfile.TemporaryDirectory() as root:
        path = None
        if schedule is not None:
            path = str(Path(root) / "schedule.yaml")
            Path(path).write_text(yaml.safe_dump(schedule), encoding="utf-8")
        callback = FinetuningScheduler(
            ft_schedule=path,
            base_max_lr=BASE_MAX_LR,
            restore_best=False,
            epoch_transitions_only=schedule is not None,
            apply_lambdas_new_pgs=True,
            log_dir=root,
            logging_level=logging.ERROR,
        )
        stopping = [] if schedule else [FTSEarlyStopping(monitor="val_loss", patience=1)]
        pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            callbacks=[callback, *stopping],
            default_root_dir=root,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(traced, loader, loader)
        return traced.tracer, callback.ft_schedule


def implicit(folder: Path) -> Path:
    tracer, schedule = fit(tiny.FourLayers(), tiny.rows(STEPS), epochs=12)
    header = {
        "peer": "finetuning-scheduler",
        "model": "four nn.Linear(8, 8), layer.0 to layer.3",
        "steps_per_epoch": STEPS,
        "hyper_parameters": {
            "lr": RATE,
            "base_max_lr": BASE_MAX_LR,
            "optimizer": "AdamW",
            "monitor": "a validation loss that never changes",
            "patience": 1,
            "restore_best": False,
        },
        "schedule": schedule,
    }
    return traces.write(folder, "finetuning_scheduler_implicit", header, tracer.groups())


def epochs_of(folder: Path) -> Path:
    """The implicit phases, but each ended by its epoch."""
    phases = {
        k: {
            "params": [f"layer.{3 - k}.bias", f"layer.{3 - k}.weight"],
            "max_transition_epoch": k + 1,
        }
        for k in range(4)
    }
    tracer, _ = fit(tiny.FourLayers(), tiny.rows(STEPS), 5, schedule=phases)
    header = {
        "peer": "finetuning-scheduler",
        "model": "four nn.Linear(8, 8), layer.0 to layer.3",
        "steps_per_epoch": STEPS,
        "hyper_parameters": {
            "lr": RATE,
            "base_max_lr": BASE_MAX_LR,
            "optimizer": "AdamW",
            "epoch_transitions_only": True,
            "restore_best": False,
        },
        "schedule": phases,
    }
    return traces.write(folder, "finetuning_scheduler_implicit_epochs", header, tracer.groups())


def explicit(folder: Path, name: str) -> Path:
    scheduler, described = SCHEDULERS[name]
    model, loader = tiny.backbone_and_head("test_resnet"), tiny.images(STEPS)
    tracer, _ = fit(model, loader, epochs=8, scheduler=scheduler, schedule=PHASES)
    header = {
        "peer": "finetuning-scheduler",
        "model": "timm test_resnet, num_classes=0, as backbone; nn.Linear as head",
        "steps_per_epoch": STEPS,
        "hyper_parameters": {
            "lr": RATE,
            "base_max_lr": BASE_MAX_LR,
            "optimizer": "AdamW",
            "epoch_transitions_only": True,
            "restore_best": False,
            "scheduler": described or "none",
        },
        "schedule": PHASES,
    }
    return traces.write(folder, f"finetuning_scheduler_explicit_{name}", header, tracer.groups())


def record(folder: Path) -> list[Path]:
    return [
        implicit(folder),
        epochs_of(folder),
        *(explicit(folder, name) for name in SCHEDULERS),
    ]
