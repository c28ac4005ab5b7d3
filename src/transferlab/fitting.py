"""One fit: the model, the module and Lightning's Trainer, from a plan."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch import nn

from transferlab.assembling import build_model
from transferlab.backbones.execution import recompute_activations, synchronise_norms
from transferlab.backbones.layout import lay_out
from transferlab.backbones.weights import StateDict, load_backbone
from transferlab.building import build
from transferlab.cache import cache_folder
from transferlab.callbacks.base import StrategyCallback
from transferlab.callbacks.best_weights import BestWeights
from transferlab.callbacks.checkpointing import Checkpointing
from transferlab.callbacks.cost import Cost
from transferlab.callbacks.history import History
from transferlab.callbacks.phases import Phases, everything
from transferlab.callbacks.pruning import Pruning
from transferlab.callbacks.refit import Refit
from transferlab.callbacks.step_weights import FOLDER as STEPS
from transferlab.callbacks.step_weights import StepWeights
from transferlab.checkpoints import FOLDER, last_checkpoint
from transferlab.datamodule import TransferDataModule
from transferlab.errors import UserError
from transferlab.evaluation import choose_metric, scores, write_predictions
from transferlab.feature_cache import FeatureCache
from transferlab.losses import ClassLoss
from transferlab.machine import ranks
from transferlab.model import TransferModel
from transferlab.module import TransferModule
from transferlab.planning import Plan
from transferlab.randomness import derive_seed
from transferlab.records import FORMAT
from transferlab.refitting import can_refit, needs_training
from transferlab.reuse import Reuse
from transferlab.trainers import interruptible, make_trainer, quiet, replicas


@dataclass
class Fit:
    """What is left after training: the trainer, the fitted module and what was measured."""

    trainer: Trainer
    module: TransferModule
    data: TransferDataModule
    history: History
    cost: Cost
    selected_step: int
    resumed: list[int]
    trials: list[dict[str, Any]]
    pruned: dict[str, Any] | None


def fit(plan: Plan, weights: StateDict | None, directory: Path, loggers: list[Logger]) -> Fit:
    """Train one run, from its last checkpoint where a process left one behind.

    Args:
        plan: the run.
        weights: that the backbone starts from; None leaves it random.
        directory: for the JSON lines and the checkpoints.
        loggers: of the trackers.

    Raises:
        UserError: found before the first optimiser step.
        DivergedError: the loss became NaN or infinite.
    """
    cfg, store = plan.cfg, plan.data.store
    module, data, strategy = assemble(plan, weights)
    metric = choose_metric(cfg.metric.name, store.labels, len(store.classes))
    history = history_of(plan, directory, metric)
    cost = Cost(cfg.trainer.energy)
    best = [BestWeights(history, metric)] if cfg.checkpoint.select == "best" else []
    kept = [StepWeights(directory / STEPS, weights_notes(plan))] * (cfg.checkpoint.keep == "all")
    pruning = [Pruning(history, metric, below)] if (below := cfg.trainer.prune_below) else []
    averaging, guard = replicas(cfg, len(plan.train))
    saving = Checkpointing(
        directory / FOLDER, plan.run_id, cfg.checkpoint.every_steps, cfg.checkpoint.every_minutes
    )
    frozen = not all(c.trains_backbone() for c in strategy)
    refit = [Refit(data, once=frozen)] if can_refit(module.model) else []
    callbacks = [
        saving, *averaging, history, *strategy, *best, *kept, *pruning, *refit, *guard, cost,
    ]  # fmt: skip
    trainer = make_trainer(cfg, callbacks, loggers, directory)
    resume = last_checkpoint(directory / FOLDER, plan.run_id)
    train(trainer, module, data, strategy, weights, resume)
    return Fit(
        trainer, module, data, history, cost,
        best[0].step or trainer.global_step if best else trainer.global_step, saving.resumed,
        [trial for callback in strategy for trial in callback.trials()],
        pruning[0].pruned if pruning else None,
    )  # fmt: skip


def history_of(plan: Plan, directory: Path, metric: str) -> History:
    """Return the record of a fit as it goes, which keeps the outputs of an early validation."""
    store = plan.data.store
    return History(
        directory / "metrics.jsonl",
        plan.cfg.trainer.log_every,
        lambda logits, positions: scores(logits, store.labels[positions]),
        metric,
        lambda logits, positions: write_predictions(
            directory / "early.parquet",
            store,
            {"validation": (positions, logits)},
            plan.data.groups,
            with_logits=False,
        ),
    )


def weights_notes(plan: Plan) -> dict[str, Any]:
    """Return what files of a run's weights say of the run."""
    return {"run_id": plan.run_id, "backbone": plan.cfg.backbone.name, "format": FORMAT}


def assemble(
    plan: Plan, weights: StateDict | None
) -> tuple[TransferModule, TransferDataModule, list[StrategyCallback]]:
    """Build what a fit trains, from its starting weights on, what it trains on, and how."""
    cfg, store = plan.cfg, plan.data.store
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    model = build_model(cfg, len(store.classes), plan.data.preprocessing.size)
    _start_from(model.backbone, weights, cfg)
    if cfg.trainer.sync_norms:
        model = synchronise_norms(model)
    if cfg.trainer.gradient_checkpointing:
        recompute_activations(model.backbone, model.name, compiled=cfg.trainer.compile)
    model = lay_out(model, channels_last=cfg.trainer.channels_last)
    module = module_of(cfg, model, build(cfg.loss))
    data = _datamodule(plan)
    module.reuse = _reuse(cfg, data)
    module.loss.prepare(torch.as_tensor(store.labels[plan.train]), len(store.classes))
    strategy = strategy_callbacks(cfg)
    torch.manual_seed(derive_seed(cfg.seed, "adapters"))  # whatever backbone and head have drawn
    for callback in strategy:
        callback.adapt(model)
    return module, data, strategy


def train(
    trainer: Trainer,
    module: TransferModule,
    data: TransferDataModule,
    strategy: Sequence[StrategyCallback],
    weights: StateDict | None,
    resume: Path | None = None,
) -> None:
    """Fit what :func:`assemble` built; ``resume`` is a checkpoint of the same run to go on from."""
    changes = all(c.trains_backbone() for c in strategy)
    trains = needs_training(module.model, changes)
    if not trains and not changes:
        module.model.backbone.requires_grad_(False)  # no phase will say so
    fresh = resume is None and weights is None and trainer.max_steps != 0
    if fresh and (not trains or _norms_stand_still(module.model, data, strategy)):
        calibrate_norms(module.model, data, trainer)
    if not trains or trainer.max_steps == 0:
        with quiet(), interruptible():
            trainer.validate(module, datamodule=data, verbose=False)
        return
    with quiet(), interruptible():
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)


def strategy_callbacks(cfg: DictConfig) -> list[StrategyCallback]:
    """Build a strategy's callbacks; one that says nothing of phases trains everything."""
    found: list[StrategyCallback] = [build(node) for node in cfg.strategy.callbacks.values()]
    return found if any(isinstance(c, Phases) for c in found) else [*found, everything()]


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


def module_of(cfg: DictConfig, model: TransferModel, loss: ClassLoss) -> TransferModule:
    """Return the LightningModule that a run trains its model by."""
    return TransferModule(
        model,
        loss,
        build(cfg.optimizer),
        lr=float(cfg.optimizer.lr),
        scheduler=build(cfg.scheduler) if cfg.scheduler else None,
        seed=cfg.seed,
        compiled=cfg.trainer.compile,
    )


def _reuse(cfg: DictConfig, data: TransferDataModule) -> Reuse | None:
    trainer = cfg.trainer
    if not trainer.reuse_gb or trainer.compile or trainer.gradient_checkpointing:
        return None
    on_disk = float(trainer.feature_cache_gb) * 2**30
    cache = FeatureCache(cache_folder() / "features", on_disk) if on_disk else None
    own = int(cfg.batch_size) // ranks(trainer)
    return Reuse(data, own, float(trainer.reuse_gb) * 2**30, cache)


def _datamodule(plan: Plan) -> TransferDataModule:
    cfg = plan.cfg
    return TransferDataModule(
        plan.data.store,
        train=plan.train,
        validation=plan.data.splits.validation,
        preprocessing=plan.data.preprocessing,
        augmentations=[build(node) for node in (cfg.augmentation or {}).values()],
        batch_size=cfg.batch_size,
        accumulate=cfg.trainer.accumulate,
        steps=cfg.budget.steps,
        seed=cfg.seed,
        data=cfg.trainer.data,
        workers=cfg.trainer.workers,
        channels_last=cfg.trainer.channels_last,
        views=cfg.views,
    )


def _norms_stand_still(
    model: TransferModel, data: TransferDataModule, strategy: Sequence[StrategyCallback]
) -> bool:
    """Say whether running statistics of the backbone never move in any phase."""
    (phases,) = [c for c in strategy if isinstance(c, Phases)]
    states = phases.plan(model, data.steps, data.steps_per_epoch)[0].states
    moving = {id(module) for state in states for module, mode in state.modes if mode}
    return any(id(norm) not in moving for norm in model.norm_layers())


def calibrate_norms(model: TransferModel, data: TransferDataModule, trainer: Trainer) -> None:
    """Give a frozen random backbone running statistics of the training images."""
    device = trainer.strategy.root_device
    model.to(device)
    data.predicted = [data.train]
    model.calibrate_norms(
        data.on_after_batch_transfer(raw, 0).images.to(device)
        for raw in data.predict_dataloader()[0]
    )
    model.train()
