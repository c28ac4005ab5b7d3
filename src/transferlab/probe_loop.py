"""The optimiser steps of heads on features that are there: of many heads, in one loop."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from transferlab.callbacks.best_weights import BestWeights
from transferlab.callbacks.cost import Cost
from transferlab.callbacks.history import History
from transferlab.callbacks.pruning import Pruning
from transferlab.datamodule import Batch, TransferDataModule
from transferlab.datasets.batches import Shuffled
from transferlab.evaluation import choose_metric
from transferlab.fitting import history_of
from transferlab.heads.stack import Stack
from transferlab.many_rates import ManyRates, steps_are_linear
from transferlab.module import DivergedError, TransferModule, finite
from transferlab.planning import Plan
from transferlab.reuse import Reuse
from transferlab.stopping import Stopped, stopping


@dataclass
class Probe:
    """One run of a fit, with a stand-in for Lightning's trainer that callbacks are shown."""

    plan: Plan
    module: TransferModule
    history: History
    cost: Cost
    best: BestWeights | None
    pruning: Pruning | None
    shown: Any
    groups: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    error: DivergedError | None = None

    @property
    def ended(self) -> bool:
        """Whether it takes no more part."""
        return self.error is not None or bool(self.kept)


def begin(plan: Plan, module: TransferModule, directory: Path, loggers: list[Logger]) -> Probe:
    """Return a run's probe, before its first step.

    Args:
        plan: of the run.
        module: of the run.
        directory: for its lines.
        loggers: of its trackers.
    """
    cfg = plan.cfg
    metric = choose_metric(cfg.metric.name, plan.data.store.labels, len(plan.data.store.classes))
    history = history_of(plan, directory, metric)
    below = cfg.trainer.prune_below
    return Probe(
        plan, module, history, Cost(cfg.trainer.energy),
        BestWeights(history, metric) if cfg.checkpoint.select == "best" else None,
        Pruning(history, metric, below) if below else None,
        _Shown(int(cfg.budget.steps), loggers),
    )  # fmt: skip


class ProbeLoop:
    """All optimiser steps of some probes, in turn with their validations."""

    def __init__(
        self, probes: list[Probe], data: TransferDataModule, trainer: Trainer, reuse: Reuse
    ) -> None:
        self.probes, self.data, self.trainer = probes, data, trainer
        self.cfg, self.reuse = probes[0].plan.cfg, reuse
        self.device = probes[0].module.device
        self.loss = probes[0].module.loss
        self.stack = Stack([probe.module.model.head for probe in probes])
        self.optimizer, self.schedulers = _optimizer(probes, self.stack)
        self.first_bad = torch.full((len(probes),), -1, device=self.device)
        self.losses, self.rates = torch.empty(len(probes)), [[0.0] for _ in probes]
        self.validated: tuple[Tensor, np.ndarray[Any, Any]] | None = None

    def run(self) -> None:
        """Train to the end of the budget; what a probe's callbacks raise ends that probe alone."""
        for probe in self.probes:
            probe.cost.on_train_start(probe.shown, probe.module)
            probe.history.on_fit_start(probe.shown, probe.module)
        try:
            self._train(int(self.cfg.budget.steps))
        finally:
            for probe in self.probes:
                self._end(probe)

    def _train(self, steps: int) -> None:
        lines = int(self.cfg.trainer.log_every)
        interval = max(steps // max(int(self.cfg.trainer.validations), 1), 1)
        for step, batch in enumerate(self._batches(steps), start=1):
            if stopping.asked:
                raise Stopped  # it begins anew: a whole fit takes seconds
            self._step(step - 1, batch)
            if step % lines and step % interval and step != steps:
                continue
            self._show(step)
            self._each(_end_of_step)
            if step % interval == 0:
                self._validate()
            if not self._going():
                return

    def _batches(self, steps: int) -> Iterator[Batch]:
        order = Shuffled(None, self.data.train, self.data.batch_size, steps, self.data.seed)
        for step in range(steps):
            yield self._batch(order[step])

    def _batch(self, raw: dict[str, Any]) -> Batch:
        moved = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in raw.items()}
        return self.data.on_after_batch_transfer(moved, 0)

    def _step(self, step: int, batch: Batch) -> None:
        counter = FlopCounterMode(display=False) if step == 0 else None
        if counter is not None:
            counter.__enter__()  # type: ignore[no-untyped-call]
        self.stack.clear()
        features = self.reuse.training(batch)
        assert features is not None, "there is a cut"
        with self.trainer.precision_plugin.forward_context():
            logits = self.stack.forward(features)
            losses = torch.vmap(self.loss, in_dims=(0, None))(logits, batch.labels)
        losses.sum().backward()
        if counter is not None:
            counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._count(counter.get_total_flops() // 2)
        self.rates = [[group["lr"] for group in probe.groups] for probe in self.probes]
        self.optimizer.step()
        for scheduler in self.schedulers:
            scheduler.step()
        self.losses = losses.detach()
        bad = ~torch.isfinite(self.losses) & (self.first_bad < 0)
        self.first_bad = torch.where(bad, step, self.first_bad)

    def _show(self, step: int) -> None:
        """Put what callbacks look at where Lightning's loop would have put it."""
        for number, probe in enumerate(self.probes):
            if probe.ended:
                continue
            probe.shown.global_step, probe.shown.rates = step, self.rates[number]
            probe.module.last_loss = self.losses[number]
            probe.module._first_bad = self.first_bad[number]

    def _count(self, multiply_adds: int) -> None:
        """Note what a probe alone would compute: features once, its head at every step."""
        own = multiply_adds // self.stack.width
        for probe in self.probes:
            probe.cost.training_multiply_adds = self.reuse.multiply_adds + own * int(
                self.cfg.budget.steps
            )
            head = probe.module.model.head
            probe.cost.trainable_parameters = sum(p.numel() for p in head.parameters())

    @torch.no_grad()
    def _validate(self) -> None:
        features, positions = self.validated or self._validation_features()
        self.validated = features, positions

        def score(probe: Probe) -> None:
            with self.trainer.precision_plugin.forward_context():
                logits = finite(probe.module.model.head(features), probe.shown.global_step)
            probe.module.validation_outputs = [(logits, positions)]
            probe.history.on_validation_epoch_end(probe.shown, probe.module)

        self._each(score)
        for probe in self._going():
            head: Any = SimpleNamespace(model=probe.module.model.head)
            if probe.best is not None:
                probe.best.on_validation_epoch_end(probe.shown, head)
            if probe.pruning is not None:
                probe.pruning.on_validation_epoch_end(probe.shown, probe.module)
            if probe.shown.should_stop:
                state = probe.module.model.head.state_dict()
                probe.kept = {name: value.clone() for name, value in state.items()}

    def _validation_features(self) -> tuple[Tensor, Any]:
        parts, rows = [], []
        model, known = self.probes[0].module.model, self.data.validation
        for raw in self.data.val_dataloader():
            batch = self._batch(raw)
            with self.trainer.precision_plugin.forward_context():
                found = self.reuse.evaluation(batch, known)
                parts.append(model.features(batch.images) if found is None else found)
            rows.append(batch.positions.cpu().numpy())
        return torch.cat(parts), np.concatenate(rows)

    def _going(self) -> list[Probe]:
        return [probe for probe in self.probes if not probe.ended]

    def _each(self, action: Any) -> None:
        for probe in self._going():
            try:
                action(probe)
            except DivergedError as error:
                probe.error = error

    def _end(self, probe: Probe) -> None:
        head: Any = SimpleNamespace(model=probe.module.model.head)
        if probe.kept:
            head.model.load_state_dict(probe.kept)
        if probe.best is not None:
            probe.best.on_train_end(probe.shown, head)
        probe.cost.on_train_end(probe.shown, probe.module)
        probe.history.teardown(probe.shown, probe.module, "fit")


def _end_of_step(probe: Probe) -> None:
    step = probe.shown.global_step
    probe.history.on_train_batch_end(probe.shown, probe.module, None, None, step - 1)


class _Shown(SimpleNamespace):
    """What callbacks ask a trainer for."""

    def __init__(self, steps: int, loggers: list[Logger]) -> None:
        super().__init__(
            max_steps=steps, loggers=loggers, global_step=0, accumulate_grad_batches=1,
            is_global_zero=True, world_size=1, should_stop=False, rates=[],
            state=SimpleNamespace(fn="fit"),
        )  # fmt: skip

    @property
    def optimizers(self) -> list[SimpleNamespace]:
        """The rates of the last step, and that of the backbone, which is 0."""
        groups = [{"lr": rate} for rate in (*self.rates, 0.0)]
        return [SimpleNamespace(param_groups=groups)]


def _optimizer(probes: list[Probe], stack: Stack) -> tuple[Any, list[Any]]:
    """Return what takes the steps of all probes, and their schedulers."""
    schedulers = []
    for probe in probes:
        module = probe.module
        configured = module.configure_optimizers()
        if isinstance(configured, dict):
            schedulers.append(configured["lr_scheduler"]["scheduler"])
            configured = configured["optimizer"]
        trained = {id(p) for p in module.model.head.parameters()}
        for group in configured.param_groups:
            group["params"] = [p for p in group["params"] if id(p) in trained]
        configured._opt_called = True  # its groups take steps, in the optimizer of them all
        probe.groups = [group for group in configured.param_groups if group["params"]]
    make = probes[0].module.optimizer
    if stack.joint and steps_are_linear(configured):
        of = {id(p): group for probe in probes for group in probe.groups for p in group["params"]}
        settings = [[of[id(p)] for p in parameters] for parameters in stack.parameters()]
        return ManyRates(stack.joint, settings, make), schedulers
    whole = make([{"params": list(probes[0].module.model.head.parameters())}])
    whole.param_groups[:] = [group for probe in probes for group in probe.groups]
    return whole, schedulers
