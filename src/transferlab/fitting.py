"""One fit: the model, the module and Lightning's Trainer, from a plan."""

import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from transferlab.backbones.timm import create_backbone, feature_width
from transferlab.backbones.weights import StateDict, load_backbone
from transferlab.building import build
from transferlab.callbacks.base import StrategyCallback
from transferlab.callbacks.best_weights import BestWeights
from transferlab.callbacks.cost import Cost
from transferlab.callbacks.history import History
from transferlab.datamodule import TransferDataModule
from transferlab.errors import UserError
from transferlab.evaluation import choose_metric, scores
from transferlab.model import TransferModel
from transferlab.module import TransferModule
from transferlab.planning import Plan
from transferlab.randomness import derive_seed


@dataclass
class Fit:
    """What is left after training: the trainer, the fitted module and what was measured."""

    trainer: Trainer
    module: TransferModule
    data: TransferDataModule
    history: History
    cost: Cost
    selected_step: int


def build_model(cfg: DictConfig, num_classes: int, image_size: int) -> TransferModel:
    """Build backbone and head with random weights that follow from the seed alone.

    Backbone and head draw from generators of their own: all arms of a replicate start from the
    same head, whatever their backbone's weights.
    """
    kwargs: Any = OmegaConf.to_container(cfg.backbone.kwargs, resolve=True)
    torch.manual_seed(derive_seed(cfg.seed, "backbone"))
    backbone = create_backbone(cfg.backbone.name, kwargs, image_size)
    torch.manual_seed(derive_seed(cfg.seed, "head"))
    head = build(cfg.head, in_features=feature_width(backbone), num_classes=num_classes)
    return TransferModel(cfg.backbone.name, backbone, head)


def fit(plan: Plan, weights: StateDict | None, directory: Path, loggers: list[Logger]) -> Fit:
    """Train one run.

    Args:
        plan: the run.
        weights: that the backbone starts from; None leaves it random.
        directory: for the JSON lines.
        loggers: of the trackers.

    Raises:
        UserError: found before the first optimiser step.
        DivergedError: the loss became NaN or infinite.
    """
    cfg = plan.cfg
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    store = plan.data.store
    model = build_model(cfg, len(store.classes), plan.data.preprocessing.size)
    _start_from(model.backbone, weights, cfg)
    if cfg.trainer.channels_last:
        model = model.to(memory_format=torch.channels_last)
    module = _module(cfg, model)
    module.loss.prepare(torch.as_tensor(store.labels[plan.train]), len(store.classes))
    data = _datamodule(plan)
    strategy: list[StrategyCallback] = [build(n) for n in cfg.strategy.callbacks.values()]
    history = History(
        directory / "metrics.jsonl",
        cfg.trainer.log_every,
        lambda logits, positions: scores(logits, store.labels[positions]),
    )
    cost = Cost()
    best = []
    if cfg.checkpoint.select == "best":
        metric = choose_metric(cfg.metric.name, store.labels, len(store.classes))
        best = [BestWeights(history, metric)]
    trainer = _trainer(cfg, [*strategy, history, *best, cost], loggers, directory)
    if weights is None and not all(c.trains_backbone() for c in strategy):
        _calibrate_norms(model, data, trainer)
    with quiet(), _interruptible():
        trainer.fit(module, datamodule=data)
    return Fit(
        trainer, module, data, history, cost,
        best[0].step or trainer.global_step if best else trainer.global_step,
    )  # fmt: skip


def _start_from(backbone: nn.Module, weights: StateDict | None, cfg: DictConfig) -> None:
    if weights is None:
        return
    where = f"source {cfg.source.name}" + (f" ({cfg.source.path})" if cfg.source.path else "")
    classes = load_backbone(backbone, weights, where)
    if cfg.source.classes is not None and classes is not None and cfg.source.classes != classes:
        raise UserError(
            f"source.classes={cfg.source.classes}, but the classifier in {where} has {classes} "
            f"rows. Set source.classes={classes}, or give the checkpoint that you mean."
        )


def _module(cfg: DictConfig, model: TransferModel) -> TransferModule:
    optimizer = build(cfg.optimizer)
    return TransferModule(
        model,
        build(cfg.loss),
        optimizer,
        lr=float(cfg.optimizer.lr),
        scheduler=build(cfg.scheduler) if cfg.scheduler else None,
        seed=cfg.seed,
    )


def _datamodule(plan: Plan) -> TransferDataModule:
    cfg = plan.cfg
    return TransferDataModule(
        plan.data.store,
        train=plan.train,
        validation=plan.data.splits.validation,
        preprocessing=plan.data.preprocessing,
        augmentations=[build(node) for node in (cfg.augmentation or {}).values()],
        batch_size=cfg.batch_size,
        steps=cfg.budget.steps,
        seed=cfg.seed,
        data=cfg.trainer.data,
        workers=cfg.trainer.workers,
        channels_last=cfg.trainer.channels_last,
    )


def _trainer(
    cfg: DictConfig, callbacks: list[Any], loggers: list[Logger], directory: Path
) -> Trainer:
    steps = int(cfg.budget.steps)
    watched = cfg.purpose == "single" and sys.stderr.isatty()
    with quiet():
        return Trainer(
            accelerator=cfg.trainer.accelerator,
            devices=cfg.trainer.devices,
            precision=cfg.trainer.precision,
            max_steps=steps,
            max_epochs=-1,
            val_check_interval=max(steps // max(cfg.trainer.validations, 1), 1),
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


def _calibrate_norms(model: TransferModel, data: TransferDataModule, trainer: Trainer) -> None:
    """Give a frozen random backbone running statistics of the training images, without labels.

    Left at mean 0 and variance 1 they would cripple it, and the control would blame the source.
    """
    norms = model.norm_layers()
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    device = trainer.strategy.root_device
    model.to(device)
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
        norm.train()
    data.predicted = [data.train]
    with torch.no_grad():
        for raw in data.predict_dataloader()[0]:
            model.backbone(data.on_after_batch_transfer(raw, 0).images.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train()


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
def _interruptible() -> Iterator[None]:
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
