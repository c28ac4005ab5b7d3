"""A learning-rate range test before training: rising rates for a while, then a suggestion.

Lightning's own finder sets every parameter group to one rate and takes all callbacks out while it
searches, so it would test neither the layers' rates nor what a strategy freezes. Here the run is
fitted as it would be, from the same weights and batches, with rates that rise in the place of its
schedule; the model is then thrown away.
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import OmegaConf

from transferlab.backbones.weights import StateDict
from transferlab.callbacks.base import StrategyCallback
from transferlab.callbacks.phases import Phases
from transferlab.callbacks.refit import Refit
from transferlab.errors import UserError
from transferlab.fitting import assemble, train
from transferlab.machine import ranks
from transferlab.parts import Parts
from transferlab.planning import Plan
from transferlab.records import replacing, write_text
from transferlab.refitting import can_refit
from transferlab.schedule import Phase
from transferlab.stats.rate_range import diverged, exponential_rates, steepest_fall, two_sided
from transferlab.trainers import make_trainer

LOWEST, HIGHEST, POINTS = 1e-7, 10.0, 100
TIMES = 4.0
"""The search ends when the smoothed loss is this many times its best."""


@dataclass(frozen=True)
class RateCurve:
    """What a search found.

    Attributes:
        rates: optimizer.lr at each step.
        losses: of that step's batch, before its update; as many as rates.
        suggested: index of the suggested rate, or None where the loss nowhere falls.
        stopped: whether the loss ended the search before the highest rate.
    """

    rates: list[float]
    losses: list[float]
    suggested: int | None
    stopped: bool

    @property
    def rate(self) -> float | None:
        """The suggested optimizer.lr."""
        return None if self.suggested is None else self.rates[self.suggested]


class RisingRates(Phases):
    """The phases of a strategy, with rising rates in the place of their curves and warm-ups.

    What trains, in which mode, and the ratios between the layers' rates stay the strategy's.

    Args:
        phases: of the strategy.
        rates: the optimizer's rate at each step.
        lr: the optimizer's rate in the configuration, to which all groups' rates are relative.
    """

    def __init__(self, phases: Phases, rates: list[float], lr: float) -> None:
        super().__init__(None, phases.groups, monitor=phases.monitor)
        self.phases, self.rates, self.lr = phases, rates, lr
        self.losses: list[float] = []
        self._parts: list[float] = []

    def schedule(self, parts: Parts, steps: int, steps_per_epoch: float) -> list[Phase]:
        """Return the strategy's phases under rising rates."""
        own = self.phases.schedule(parts, steps, steps_per_epoch)
        return [replace(phase, curve=self._factor, warmup=None) for phase in own]

    def trains_backbone(self) -> bool:
        """Say what the strategy says."""
        return self.phases.trains_backbone()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the step's loss, the mean over its micro-batches, and end where it diverges."""
        del outputs, batch, batch_idx
        self._parts.append(float(pl_module.last_loss))  # type: ignore[arg-type]
        if trainer.global_step == len(self.losses):
            return
        self.losses.append(sum(self._parts) / len(self._parts))
        self._parts = []
        if len(self.losses) == len(self.rates) or diverged(self.losses, TIMES):
            trainer.should_stop = True

    def _factor(self, progress: float) -> float:
        del progress
        return self.rates[min(len(self.losses), len(self.rates) - 1)] / self.lr


def find_rate(plan: Plan, weights: StateDict | None) -> RateCurve:
    """Search for a run's rate: 100 steps of its training at most, from 1e-7 up to 10.

    Nothing is recorded, the test split stays closed, and the random generators are left as they
    were found. Several devices are played by one that takes their parts of a batch in turn.

    Args:
        plan: the run.
        weights: that the backbone starts from; None leaves it random.

    Raises:
        UserError: found while the model is built, or a strategy without training.
    """
    if plan.cfg.budget.steps == 0:
        raise UserError("--find-lr: budget.steps=0 trains nothing, so there is nothing to search.")
    steps = max(int(plan.cfg.budget.steps), POINTS)  # the schedule unfolds as in the run
    rates = exponential_rates(LOWEST, HIGHEST, POINTS).tolist()
    with isolate_rng():
        plan = _alone(plan, steps)
        module, data, strategy = assemble(plan, weights)
        module.scheduler = None
        callbacks = [_raised(callback, rates, module.lr) for callback in strategy]
        (rising,) = [callback for callback in callbacks if isinstance(callback, RisingRates)]
        refit = [Refit(data)] if can_refit(module.model) else []
        trainer = make_trainer(plan.cfg, [*callbacks, *refit], [], plan.directory)
        trainer.limit_val_batches = 0
        train(trainer, module, data, callbacks, weights)
    losses = [loss for loss in rising.losses if math.isfinite(loss)]
    if not losses:
        raise UserError(
            f"--find-lr: strategy={plan.cfg.strategy.name} with this head took no step with a "
            "finite loss, so there is nothing to search. Leave --find-lr out."
        )
    stopped = len(rising.losses) < len(rates)
    return RateCurve(rates[: len(losses)], losses, steepest_fall(losses), stopped)


def write_curve(curve: RateCurve, path: Path) -> None:
    """Write a curve as JSON lines to ``path`` and as a picture beside it, with suffix .png."""
    means = two_sided(curve.losses)
    lines = [
        {"step": step, "lr": rate, "loss": loss, "mean": mean, "suggested": step == curve.suggested}
        for step, (rate, loss, mean) in enumerate(
            zip(curve.rates, curve.losses, means.tolist(), strict=True)
        )
    ]
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
    with replacing(path.with_suffix(".png")) as temporary:
        _draw(curve, means.tolist(), temporary)


def _alone(plan: Plan, steps: int) -> Plan:
    """Return the plan for one process, which takes the parts of all ranks one after another."""
    cfg = plan.cfg.copy()
    OmegaConf.set_struct(cfg, False)
    cfg.trainer.accumulate *= ranks(cfg.trainer)
    cfg.trainer.devices, cfg.trainer.num_nodes, cfg.trainer.sync_norms = 1, 1, False
    cfg.budget.steps = steps
    return replace(plan, cfg=cfg)


def _raised(callback: StrategyCallback, rates: list[float], lr: float) -> StrategyCallback:
    return RisingRates(callback, rates, lr) if isinstance(callback, Phases) else callback


def _draw(curve: RateCurve, means: list[float], path: Path) -> None:
    from matplotlib.figure import Figure  # here: its import takes a second

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, ".", color="0.6", label="loss of a batch")
    axes.plot(curve.rates, means, color="C0", label="smoothed")
    if curve.rate is not None and curve.suggested is not None:
        axes.axvline(curve.rate, color="C3", linewidth=1)
        axes.plot(curve.rate, means[curve.suggested], "o", color="C3")
        axes.plot([], [], "o-", color="C3", label=f"suggested: {curve.rate:.2g}")
    top = max(means[0], *means[: len(means) * 3 // 4]) * 1.5
    axes.set(xscale="log", xlabel="optimizer.lr", ylabel="training loss")
    axes.set_ylim(0, max(top, min(curve.losses) * 2))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150, format="png")
