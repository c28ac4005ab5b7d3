"""Phases: which parts train, in which mode and at which rate, at every optimiser step."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from omegaconf import OmegaConf
from torch import nn
from torch.optim import Optimizer

from transferlab.backbones.groups import Granularity
from transferlab.callbacks.base import StrategyCallback
from transferlab.callbacks.trainer_facts import (
    budget_steps,
    check_optimizer,
    only_optimizer,
    rewrap,
    steps_per_epoch,
    tell_of_change,
    watched_score,
)
from transferlab.curves import Curve
from transferlab.errors import RunError, UserError
from transferlab.model import TransferModel
from transferlab.optim import split_groups
from transferlab.parts import Parts
from transferlab.phase_plan import PhasePlan
from transferlab.phase_reading import parse_phases
from transferlab.schedule import Phase, Plateau, Timeline, Transition, plateaued

CHANGED = ("lr", "betas", "momentum")
"""Keys of an optimizer group that are set for a step and put back after it."""


class Phases(StrategyCallback):
    """Train the parts that a schedule names, phase after phase; works in any Lightning Trainer.

    State is a pure function of (schedule, optimiser step, transitions), where transitions are
    the ends of phases that a plateau decided; it is applied at the start and before every step.
    All optimizer groups exist from the start, and thawing flips flags. Where several processes
    train, the model is wrapped anew at every thaw: DistributedDataParallel synchronises only
    the parameters that were trainable when it was made.

    Args:
        phases: name -> settings, see :class:`transferlab.schedule.Phase`, in order.
        groups: ``stages`` or ``blocks``, the unit of layer groups.
        curve: progress of the budget in [0, 1) -> factor, where a phase brings none; no scheduler.
        monitor: in a Trainer of your own, the logged score (higher is better) of plateaus.
    """

    def __init__(
        self,
        phases: Mapping[str, Any] | None = None,
        groups: Granularity = "stages",
        curve: Curve | None = None,
        monitor: str = "validation_score",
    ) -> None:
        self.groups, self.curve, self.monitor = groups, curve, monitor
        plain: Any = OmegaConf.to_container(phases) if OmegaConf.is_config(phases) else phases
        self._given = parse_phases(plain) if plain is not None else None
        self.chooses |= any(isinstance(phase.until, Plateau) for phase in self._given or [])
        self.transitions: list[Transition] = []
        self._restored: list[int] = []
        self._entries: dict[int, float] = {}  # phase: the scheduler's factor when it began
        self._scores: list[tuple[int, int, float]] = []  # phase, step, score
        self._best: dict[str, Any] = {}
        self._applied: int | None = None
        self._told: int | None = None
        self._unchecked = False

    def schedule(self, parts: Parts, steps: int, steps_per_epoch: float) -> list[Phase]:
        """Return the phases on a model; subclasses that generate theirs override this."""
        del parts, steps, steps_per_epoch
        assert self._given is not None, "phases, or a subclass that generates them"
        return self._given

    def plan(
        self, model: nn.Module, steps: int, steps_per_epoch: float
    ) -> tuple[PhasePlan, Timeline]:
        """Settle the schedule on a model and a budget.

        Raises:
            UserError: the schedule does not fit the model or the budget.
        """
        parts = Parts(model, self.groups)
        phases = self.schedule(parts, steps, steps_per_epoch)
        return PhasePlan(phases, parts), Timeline(phases, steps, steps_per_epoch)

    def trains_backbone(self) -> bool:
        """Say whether any phase trains more than the head."""
        phases = self._given or []
        return any(
            set(phase.train) - {"head", -1, "last 1"} or phase.norms in ("train_affine", "train")
            for phase in phases
        )

    def brings_curves(self) -> bool:
        """Say whether the phases bring curves of their own, which take the scheduler's place."""
        return self.curve is not None or any(p.curve is not None for p in self._given or [])

    def phase_at(self, step: int) -> tuple[int, list[str]]:
        """Return the number of a step's phase in this fit, and the names of all phases."""
        names = [phase.name for phase in self._plan.phases]
        return self._timeline.phase_at(step, self.transitions), names

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier fit; what a checkpoint holds is restored after this."""
        if stage == "fit" and trainer.global_step == 0:
            empty: dict[str, Any] = {"transitions": [], "restored": [], "scores": []}
            self.load_state_dict({**empty, "entries": {}, "best": {}})

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Settle the schedule, lay out the optimizer's groups and apply the first state."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        others = [type(c).__name__ for c in callbacks if isinstance(c, Phases)]
        if len(others) > 1:
            raise UserError(
                f"{len(others)} callbacks decide what trains ({', '.join(others)}). Keep one."
            )
        self._model = model_of(pl_module)
        self._plan, self._timeline = self.plan(
            self._model, budget_steps(trainer), steps_per_epoch(trainer)
        )
        optimizer = only_optimizer(trainer)
        names = self._names_by_id()
        cycled = any(phase.momentum is not None for phase in self._plan.phases)
        check_optimizer(optimizer, self._plan.parts.parameters, self._plan.thawed_in, cycled)
        split_groups(
            optimizer,
            [config.scheduler for config in trainer.lr_scheduler_configs],
            kind=lambda p: self._plan.signature(names[id(p)]) if id(p) in names else None,
        )
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        optimizer.register_step_pre_hook(lambda *_: self._set_rates(trainer, optimizer))
        optimizer.register_step_post_hook(lambda *_: _put_back(optimizer))
        self._applied = self._told = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Apply the state of the step at which this process starts or resumes."""
        names, groups = self._names_by_id(), only_optimizer(trainer).param_groups
        # not earlier: other callbacks may have split the groups further
        self._members = [names.get(id(group["params"][0])) for group in groups]
        self._apply(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Apply the state that belongs to the coming optimiser step."""
        self._apply(trainer, pl_module)
        if self._told != self._applied:
            self._told = self._applied
            extents = [
                self._timeline.extent(i, self.transitions) for i in range(len(self._plan.states))
            ]
            index = self._applied or 0
            later = list(zip(self._plan.states, extents, strict=True))[index + 1 :]
            tell_of_change(pl_module, extents[index], later)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """After the first backward of a phase, find parameters that got no gradient."""
        if not self._unchecked:
            return
        self._unchecked = False
        state = self._plan.states[self._applied or 0]
        parameters = self._plan.parts.parameters
        silent = sorted(n for n in state.trained if parameters[n].grad is None)
        if silent:
            raise RunError(
                f"phase {self._plan.phases[self._applied or 0].name} is meant to train "
                f"{silent[0]}{f' and {len(silent) - 1} more' if len(silent) > 1 else ''}, but no "
                "gradient reached it: nothing in the model's forward pass uses it, or something "
                "detaches it. Take it out of the phase's parts."
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide on rank 0 whether a plateau ends the phase; the state is applied at the step."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not fitting or trainer.global_step == 0 or self._applied is None:
            return
        index, step = self._applied, trainer.global_step
        until = self._plan.phases[index].until
        if (
            not isinstance(until, Plateau)
            or self._timeline.phase_at(step - 1, self.transitions) != index
        ):
            return
        score = float(trainer.strategy.broadcast(watched_score(trainer, pl_module, self.monitor)))
        earlier = [s for phase, _, s in self._scores if phase == index]
        self._scores.append((index, step, score))
        if until.restore and (not earlier or score > max(earlier)):
            state = self._model.state_dict()
            self._best = {"step": step, "state": {k: v.detach().clone() for k, v in state.items()}}
        if plateaued([*earlier, score], until.patience, until.min_delta):
            self.transitions.append(Transition(index, step))

    def state_dict(self) -> dict[str, Any]:
        """Return the transitions, and what a plateau phase must remember, as plain containers."""
        return {
            "transitions": [[t.phase, t.step] for t in self.transitions],
            "restored": list(self._restored),
            "entries": dict(self._entries),
            "scores": [list(score) for score in self._scores],
            "best": self._best,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""
        self.transitions = [Transition(*entry) for entry in state_dict["transitions"]]
        self._restored = list(state_dict["restored"])
        self._entries = dict(state_dict["entries"])
        self._scores = [(int(p), int(s), float(v)) for p, s, v in state_dict["scores"]]
        self._best = state_dict["best"]

    def _apply(self, trainer: Trainer, pl_module: LightningModule) -> None:
        index = self._timeline.phase_at(trainer.global_step, self.transitions)
        state = self._plan.states[index]
        if index != self._applied:
            self._restore(index, trainer)
            self._applied, self._unchecked = index, True
            for name, parameter in self._plan.parts.parameters.items():
                parameter.requires_grad_(name in state.trained)
                if name not in state.trained:
                    parameter.grad = None
            if isinstance(self._model, TransferModel):
                self._model.hold(state.modes)
            rewrap(trainer, pl_module)
        for module, mode in state.modes:  # a loop of your own may have called train()
            if module.training != mode:
                module.training = mode

    def _restore(self, index: int, trainer: Trainer) -> None:
        """Go back to the best weights of a plateau phase that has just ended, once."""
        ended = index - 1
        until = self._plan.phases[ended].until if ended >= 0 else None
        if not isinstance(until, Plateau) or not until.restore or ended in self._restored:
            return
        self._restored.append(ended)
        if self._best:
            self._model.load_state_dict(self._best["state"])
            for optimizer in trainer.optimizers:
                getattr(optimizer, "optimizer", optimizer).state.clear()
        self._best = {}

    def _set_rates(self, trainer: Trainer, optimizer: Optimizer) -> None:
        step = trainer.global_step
        momentum = self._plan.phases[self._applied or 0].momentum
        for group, name in zip(optimizer.param_groups, self._members, strict=True):
            group["scheduled"] = {key: group[key] for key in CHANGED if key in group}
            if name is None:  # of no part of the model: the schedule does not speak of it
                continue
            # OneCycleLR writes where it starts from into initial_lr
            base = float(group.get("max_lr", group["initial_lr"]))
            factor = float(group["lr"]) / base if base else 0.0
            if self.curve is not None:
                factor = self.curve(step / self._timeline.steps)
            factor = self._rebased(name, factor)
            group["lr"] = group["effective_lr"] = self._plan.rate(
                name, base, factor, step, self._timeline, self.transitions
            )
            if momentum is not None:
                value = momentum(self._timeline.progress(step, self.transitions))
                if "betas" in group:
                    group["betas"] = (value, group["betas"][1])
                else:
                    group["momentum"] = value

    def _names_by_id(self) -> dict[int, str]:
        return {id(p): n for n, p in self._plan.parts.parameters.items()}

    def _rebased(self, name: str, factor: float) -> float:
        """Count the scheduler's factor from a part's thaw, where its phase says so."""
        thawed = self._plan.thawed_in.get(name, -1)
        if thawed < 0 or not self._plan.phases[thawed].rebase:
            return factor
        if thawed <= (self._applied or 0):
            return factor / self._entries.setdefault(thawed, factor or 1.0)
        return factor


def everything() -> Phases:
    """Return the schedule of plain fine-tuning: one phase in which all parts train."""
    return Phases({"all": {"train": ["all"]}})


def _put_back(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        group.update(group.pop("scheduled"))


def model_of(pl_module: LightningModule) -> nn.Module:
    """Return what a strategy works on: the TransferModel, or a module of your own."""
    model = getattr(pl_module, "model", None)
    return model if isinstance(model, TransferModel) else pl_module
