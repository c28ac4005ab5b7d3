"""The table phase x layer group: what a strategy trains, how fast and in which mode."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig
from torch import nn

from transferlab.callbacks.base import StrategyCallback
from transferlab.callbacks.layerwise_lr_decay import LayerwiseLRDecay
from transferlab.callbacks.phases import Phases
from transferlab.model import TransferModel
from transferlab.parts import LayerGroup, Parts, decay_ids, is_norm
from transferlab.phase_plan import PhasePlan, PhaseState
from transferlab.schedule import Plateau, Timeline

MODES = {
    (True, True): "train",
    (True, False): "affine",
    (False, True): "statistics",
    (False, False): "eval",
}
"""(weights and biases train, running statistics move) -> word."""


@dataclass(frozen=True)
class Row:
    """One layer group in one phase.

    Attributes:
        phase: its name.
        steps: first and last-but-one optimiser step, as text; open where a plateau decides.
        group: name of the layer group.
        parameters: how many numbers it has.
        trained: how many of them train.
        names: of the parameters that train.
        rates: (lowest, highest) peak rate of those, or None.
        weight_decay: (lowest, highest) of those, or None.
        norms: what its norm layers do: eval, statistics, affine, train, or - for none.
    """

    phase: str
    steps: str
    group: str
    parameters: int
    trained: int
    names: frozenset[str]
    rates: tuple[float, float] | None
    weight_decay: tuple[float, float] | None
    norms: str


def phase_rows(
    cfg: DictConfig, model: TransferModel, callbacks: Iterable[StrategyCallback], per_epoch: float
) -> list[Row]:
    """Return the table of a run that has not started.

    Args:
        cfg: with ``budget.steps`` settled.
        model: with its adapters, if it has any.
        callbacks: of the strategy; one of them is a Phases.
        per_epoch: optimiser steps of one pass over the training images.

    Raises:
        UserError: the schedule does not fit the model or the budget.
    """
    callbacks = list(callbacks)
    (schedule,) = [c for c in callbacks if isinstance(c, Phases)]
    plan, timeline = schedule.plan(model, int(cfg.budget.steps), per_epoch)
    ladder = dict.fromkeys(plan.parts.parameters, 1.0)
    rows_of = plan.parts
    for callback in callbacks:
        if isinstance(callback, LayerwiseLRDecay):
            ladder = callback.lr_scales(model)
            rows_of = Parts(model, callback.groups)
    table = _Table(cfg, model, plan, ladder)
    return [
        table.row(index, _steps(plan, timeline, index), group)
        for index in range(len(plan.phases))
        for group in _groups(rows_of)
    ]


def _groups(parts: Parts) -> list[LayerGroup]:
    """Return layer groups as rates count them: a head's own norm stands with the head."""
    ids = decay_ids(parts)
    members: list[list[str]] = [[] for _ in parts.groups]
    for name, group in ids.items():
        members[group].append(name)
    return [
        LayerGroup(group.name, tuple(names))
        for group, names in zip(parts.groups, members, strict=True)
        if names
    ]


def _steps(plan: PhasePlan, timeline: Timeline, index: int) -> str:
    starts = [*timeline.starts(), timeline.steps]
    begin, end = starts[index], starts[index + 1]
    early = isinstance(plan.phases[index].until, Plateau)
    before = any(isinstance(phase.until, Plateau) for phase in plan.phases[:index])
    start = "?" if begin is None else f"{'<=' if before else ''}{begin}"
    open_end = early or (before and end != timeline.steps)
    return f"{start} to " + ("?" if end is None else f"{'<=' if open_end else ''}{end}")


class _Table:
    def __init__(
        self, cfg: DictConfig, model: TransferModel, plan: PhasePlan, ladder: dict[str, float]
    ) -> None:
        self.plan, self.ladder = plan, ladder
        self.lr = float(cfg.optimizer.lr)
        self.decay = float(cfg.optimizer.get("weight_decay", 0.0) or 0.0)
        self.undecayed = model.undecayed()
        self.modules: dict[str, nn.Module] = dict(model.named_modules())

    def row(self, index: int, steps: str, group: LayerGroup) -> Row:
        state, parameters = self.plan.states[index], self.plan.parts.parameters
        trained = frozenset(n for n in group.parameters if n in state.trained)
        rates = [self._peak(index, state, name) for name in trained]
        decays = [self._weight_decay(name) for name in trained]
        return Row(
            phase=self.plan.phases[index].name,
            steps=steps,
            group=group.name,
            parameters=sum(parameters[n].numel() for n in group.parameters),
            trained=sum(parameters[n].numel() for n in trained),
            names=trained,
            rates=(min(rates), max(rates)) if rates else None,
            weight_decay=(min(decays), max(decays)) if decays else None,
            norms=self._norms(state, group),
        )

    def _peak(self, index: int, state: PhaseState, name: str) -> float:
        relative = self.lr * self.ladder[name] * self.plan.phases[index].scale
        return state.absolute.get(name, relative) * state.rates.get(name, 1.0)

    def _weight_decay(self, name: str) -> float:
        parameter = self.plan.parts.parameters[name]
        return self.decay if parameter.ndim > 1 and name not in self.undecayed else 0.0

    def _norms(self, state: PhaseState, group: LayerGroup) -> str:
        owners = {name.rpartition(".")[0] for name in group.parameters}
        modes: dict[int, bool] = {id(module): mode for module, mode in state.modes}
        found = set()
        for path in owners:
            module: Any = self.modules[path]
            if is_norm(module):
                trains = any(f"{path}.{n}" in state.trained for n, _ in module.named_parameters())
                moving = modes[id(module)] and hasattr(module, "running_mean")
                found.add(MODES[trains, moving])
        return "/".join(sorted(found)) or "-"
