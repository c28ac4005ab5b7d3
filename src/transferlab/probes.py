"""Heads on a frozen backbone: trained on features that are computed once, many at a time.

Lightning's loop takes milliseconds a step, a head on its features takes a tenth of one. What a
run is does not change: batches, schedule, validations, lines, best weights and scores are those
of the same run in Lightning's loop, to rounding.
"""

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from torch import nn

from transferlab.backbones.weights import StateDict
from transferlab.building import build
from transferlab.callbacks.freezing import FrozenBackbone
from transferlab.datamodule import TransferDataModule
from transferlab.fitting import Fit, assemble, calibrate_norms
from transferlab.forward_graph import NoCutError
from transferlab.machine import ranks
from transferlab.model import TransferModel
from transferlab.module import DivergedError, TransferModule
from transferlab.planning import Plan
from transferlab.probe_loop import Probe, ProbeLoop, begin
from transferlab.records import sha256_record
from transferlab.refitting import can_refit
from transferlab.trainers import make_trainer, quiet

OWN = ("lr", "weight_decay")
"""Settings of an optimizer that probes of one fit may differ in."""


def eligible(plan: Plan) -> bool:
    """Say whether a run is a probe: one head, trained by gradients on features that stand still."""
    cfg = plan.cfg
    nodes = list(cfg.strategy.callbacks.values())
    if len(nodes) != 1 or type(build(nodes[0])) is not FrozenBackbone:
        return False
    trainer = cfg.trainer
    whole = ranks(trainer) == 1 and trainer.accumulate == 1 and not trainer.gradient_clip
    plain = whole and not (trainer.compile or trainer.gradient_checkpointing)
    saved = cfg.checkpoint.every_steps is not None or cfg.checkpoint.keep == "all"
    exact = trainer.precision in ("32-true", "bf16-mixed", "64-true")
    return bool(plain and exact and trainer.reuse_gb and not saved and cfg.budget.steps > 0)


def together(plan: Plan) -> str:
    """Return a key: probes of equal keys can be trained in one fit."""
    optimizer = {k: v for k, v in plan.identity["optimizer"].items() if k not in OWN}
    shared = plan.identity | {"optimizer": optimizer, "prune_below": None}
    machine = {k: plan.cfg.trainer[k] for k in ("accelerator", "threads", "validations")}
    return sha256_record([shared, machine, plan.cfg.purpose, str(plan.cfg.output_dir)])


def fit(
    plans: Sequence[Plan],
    weights: StateDict | None,
    directories: Sequence[Path],
    loggers: Sequence[list[Logger]],
) -> list[Fit | DivergedError]:
    """Train the heads of runs with equal :func:`together` keys; each result is that of it alone.

    Args:
        plans: the runs.
        weights: that the backbone starts from; None leaves it random.
        directories: of the runs, for their lines.
        loggers: of the runs' trackers.

    Raises:
        NoCutError: features take more memory than there is, or do not stand still: nothing has
            been trained, and Lightning's loop can.
        UserError: found before the first optimiser step.
    """
    first, data, _ = assemble(plans[0], weights)
    reuse = first.reuse
    if reuse is None or can_refit(first.model) or _draws(first.model.head):
        raise NoCutError("its head is fitted in closed form, or draws numbers")
    trainer = make_trainer(plans[0].cfg, [], [], directories[0])
    data.trainer = trainer
    data.setup("fit")
    device = trainer.strategy.root_device
    if weights is None:
        calibrate_norms(first.model, data, trainer)
    first.model.backbone.requires_grad_(False)
    first.to(device).eval()
    modules = [first, *(_beside(first, plan) for plan in plans[1:])]
    probes = [begin(*each) for each in zip(plans, modules, directories, loggers, strict=True)]
    with trainer.precision_plugin.forward_context():
        reuse.begin(first.model, device, int(plans[0].cfg.budget.steps))
    if reuse.why_not is not None:
        raise NoCutError(reuse.why_not)
    loop = ProbeLoop(probes, data, trainer, reuse)
    with quiet():
        loop.run()
    return [probe.error or _fitted(probe, trainer, data, len(probes)) for probe in probes]


def _draws(head: nn.Module) -> bool:
    """Say whether a head draws numbers, or gathers statistics, while it trains."""
    still = (nn.Dropout, nn.modules.batchnorm._NormBase)
    active = [m for m in head.modules() if isinstance(m, still)]
    return any(not isinstance(m, nn.Dropout) or m.p > 0 for m in active)


def _beside(first: TransferModule, plan: Plan) -> TransferModule:
    """Return another run's module: on the first one's backbone, its head as the first one's began.

    Heads of runs that train together follow from the same settings and seed, so do optimizers and
    schedules but for :data:`OWN`: what those were built from is not read again for each.
    """
    whole, optimizer = first.model, plan.cfg.optimizer
    own = {name: float(optimizer[name]) for name in OWN if name in optimizer}
    model = TransferModel(whole.name, whole.backbone, copy.deepcopy(whole.head))
    module = TransferModule(
        model.train(whole.training), first.loss, partial(first.optimizer, **own),
        lr=own["lr"], scheduler=first.scheduler, seed=first.seed,
    )  # fmt: skip
    module.reuse = first.reuse
    return module


def _fitted(probe: Probe, trainer: Trainer, data: TransferDataModule, count: int) -> Fit:
    probe.cost.fit_seconds /= count
    probe.cost.joules = None if probe.cost.joules is None else probe.cost.joules / count
    step = probe.best.step if probe.best is not None else None
    return Fit(
        trainer, probe.module, data, probe.history, probe.cost, step or probe.shown.global_step,
        [], [], probe.pruning.pruned if probe.pruning is not None else None,
    )  # fmt: skip
