"""Fits of the same images from the same weights as others make them: by hand, or with a library.

Each function trains ``model`` on ``task`` for its epochs and returns the seconds of the whole call,
set-up included. Images are decoded and normalised before: the peers never wait for a file.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from slices import clock, step_done
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset


@dataclass(frozen=True)
class Task:
    """What is learned.

    Attributes:
        images, labels: (N, C, H, W) normalised and (N,), to train on.
        test_images, test_labels: the same of test.
        epochs, batch_size, lr, weight_decay: of AdamW at a constant rate.
    """

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float


def accuracy(model: nn.Module, task: Task) -> float:
    """Return the share of test images that a model labels rightly."""
    model.eval()
    device = next(model.parameters()).device
    with torch.inference_mode():
        parts = [model(p.to(device)).argmax(1).cpu() for p in task.test_images.split(128)]
    return float((torch.cat(parts) == task.test_labels).float().mean())


def freeze(module: nn.Module) -> None:
    """Freeze parameters and keep norm statistics and dropout still."""
    module.requires_grad_(False)
    module.eval()


def _adamw(model: nn.Module, task: Task) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    fused = parameters[0].device.type == "cuda"
    return torch.optim.AdamW(
        parameters, lr=task.lr, weight_decay=task.weight_decay, fused=fused or None
    )


def _epochs(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    task: Task,
    epochs: int,
    *,
    bf16: bool,
) -> None:
    device = inputs.device
    for _ in range(epochs):
        for chosen in torch.randperm(len(inputs), device=device).split(task.batch_size):
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = cross_entropy(model(inputs[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()


def bare(
    model: nn.Module,
    task: Task,
    *,
    channels_last: bool = False,
    frozen: Sequence[nn.Module] = (),
    bf16: bool = False,
    device: str = "cpu",
) -> float:
    """Train by the loop that one would write by hand, on images that lie on the device."""
    started = clock()
    images, labels, model = task.images.to(device), task.labels.to(device), model.to(device)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    model.train()
    for part in frozen:
        freeze(part)
    _epochs(model, _adamw(model, task), images, labels, task, task.epochs, bf16=bf16)
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def cached_stages(
    stages: Sequence[nn.Module], head: nn.Module, task: Task, *, phases: int, bf16: bool = False
) -> float:
    """Thaw stage after stage from the top by hand; what is frozen is computed once a phase.

    Args:
        stages: of the backbone, in order; the first phase trains the head alone.
        head: takes what the last stage returns.
        task: what is learned.
        phases: that share the epochs evenly; what never thaws stays frozen.
        bf16: autocast.
    """
    started = clock()
    whole = nn.Sequential(*stages, head).to(memory_format=torch.channels_last)
    images = task.images.contiguous(memory_format=torch.channels_last)
    for thawed in range(phases):
        whole.requires_grad_(True)
        front, back = whole[: len(stages) - thawed], whole[len(stages) - thawed :]
        freeze(front)
        back.train()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            known = torch.cat([front(part) for part in images.split(64)])
        optimizer = _adamw(whole, task)
        _epochs(back, optimizer, known, task.labels, task, task.epochs // phases, bf16=bf16)
    return clock() - started


def lightning(
    model: nn.Module,
    task: Task,
    *,
    fastest: bool = False,
    frozen: Sequence[nn.Module] = (),
    phases: Sequence[Sequence[str]] = (),
    precision: str = "32-true",
) -> float:
    """Train with Lightning's Trainer as it comes, or without all that it can leave out.

    Args:
        model: to train.
        task: what is learned.
        fastest: its barebones mode, and channels_last.
        frozen: parts that stand still.
        phases: names of the parameters that thaw in each phase of finetuning-scheduler, which
            shares the epochs out evenly; none for a plain fit.
        precision: of the trainer.
    """
    from lightning import Trainer

    started = clock()
    for part in frozen:
        freeze(part)
    if fastest:
        model.to(memory_format=torch.channels_last)
    loader = DataLoader(TensorDataset(task.images, task.labels), task.batch_size, shuffle=True)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        callbacks = [_scheduler(phases, task, folder)] if phases else []
        options = {"barebones": True} if fastest else {"default_root_dir": folder}
        trainer = Trainer(
            max_epochs=task.epochs, accelerator="cpu", callbacks=callbacks, precision=precision,
            **options,
        )  # fmt: skip
        trainer.fit(_lightning_module(model, task, frozen, fastest), loader)
    return clock() - started


def _lightning_module(
    model: nn.Module, task: Task, frozen: Sequence[nn.Module], channels_last: bool
) -> Any:
    from lightning import LightningModule

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def on_train_epoch_start(self) -> None:
            for part in frozen:
                freeze(part)

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            images, labels = batch
            if channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            return cross_entropy(self.model(images), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return _adamw(self.model, task)

    return Module()


def _scheduler(phases: Sequence[Sequence[str]], task: Task, folder: str) -> object:
    """Return finetuning-scheduler's callback with an explicit schedule of phases."""
    import yaml
    from finetuning_scheduler import FinetuningScheduler

    epochs, rate = task.epochs // len(phases), task.lr
    schedule = {
        number: {
            "params": [f"model.{name}" for name in names],
            "max_transition_epoch": (number + 1) * epochs,
            # what thaws later would otherwise train at its default of 1e-5
            **({"lr": rate} if number else {}),
        }
        for number, names in enumerate(phases)
    }
    path = Path(folder) / "schedule.yaml"
    path.write_text(yaml.safe_dump(schedule))
    return FinetuningScheduler(
        ft_schedule=str(path), epoch_transitions_only=True, restore_best=False
    )


def fastai(
    model: nn.Module, task: Task, *, body: nn.Module, head: nn.Module, frozen: bool = False
) -> float:
    """Train with fastai's Learner."""
    import fastai.callback.progress  # noqa: F401 (gives learners no_bar)
    from fastai.callback.core import Callback
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader as Loader
    from fastai.learner import Learner
    from fastai.optimizer import Adam

    started = clock()
    data = TensorDataset(task.images, task.labels)
    loaders = DataLoaders(
        Loader(data, bs=task.batch_size, shuffle=True, num_workers=0),
        Loader(data, bs=task.batch_size, num_workers=0),
    )

    def split(_: nn.Module) -> list[list[nn.Parameter]]:
        return [list(body.parameters()), list(head.parameters())]

    class Turns(Callback):
        def after_step(self) -> None:
            step_done()  # fastai's optimizers are not torch's

    with tempfile.TemporaryDirectory() as folder, _quiet():
        learner = Learner(
            loaders, model, loss_func=nn.CrossEntropyLoss(), opt_func=Adam, lr=task.lr,
            wd=task.weight_decay, splitter=split, path=folder,
            cbs=[Turns()],
        )  # fmt: skip
        with learner.no_logging(), learner.no_bar():
            if frozen:
                learner.freeze()
            learner.validate = lambda *_, **__: None
            learner.fit(task.epochs)
    return clock() - started


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for name in ("lightning.pytorch", "pytorch_lightning", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        with contextlib.redirect_stderr(io.StringIO()):
            yield
