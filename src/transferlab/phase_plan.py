"""What the phases of a schedule mean on a given model: parts, rates and modes of each phase."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from transferlab.errors import UserError
from transferlab.parts import Parts, decay_ids
from transferlab.schedule import Phase, Selector, Timeline, Transition, warmup_factor

Names = frozenset[str]


@dataclass(frozen=True)
class PhaseState:
    """One phase on one model.

    Attributes:
        trained: names of the parameters that train.
        added: those of them that this phase was the first to train.
        rates: name -> factor on the optimizer's rate.
        absolute: name -> rate that takes the optimizer's place.
        modes: (module, whether it is in train mode), for every module inside the model.
    """

    trained: Names
    added: Names
    rates: Mapping[str, float]
    absolute: Mapping[str, float]
    modes: Sequence[tuple[nn.Module, bool]]


class PhasePlan:
    """The phases of a schedule on a model.

    Args:
        phases: in order.
        parts: of the model.

    Raises:
        UserError: a selector that matches nothing, a phase that changes nothing, a rate for a
            part that never trains, or a decay that leaves one distinct rate.
    """

    def __init__(self, phases: Sequence[Phase], parts: Parts) -> None:
        self.phases, self.parts = list(phases), parts
        self.states: list[PhaseState] = []
        self.thawed_in: dict[str, int] = {}
        rates: dict[str, float] = {}
        absolute: dict[str, float] = {}
        chosen: Names = frozenset()
        for index, phase in enumerate(self.phases):
            before = chosen
            chosen = chosen | self._selected(phase.train, f"phase {phase.name}: train")
            trained = self._trained(phase, chosen)
            added = trained - frozenset(self.thawed_in)
            self.thawed_in |= dict.fromkeys(added, index)
            named = self._rates(phase)
            rates, absolute = rates | named, {k: v for k, v in absolute.items() if k not in named}
            anew = self._absolute(phase, added)
            # a factor from earlier phases was one on the optimizer's rate, not on the new one
            rates = {k: v for k, v in rates.items() if k not in anew or k in named}
            absolute |= anew
            if (
                index
                and chosen == before
                and not added
                and self._same(phase, self.phases[index - 1])
            ):
                raise UserError(
                    f"phase {phase.name} changes nothing: {list(phase.train)} trains already "
                    f"(phases are cumulative). Remove it, or give it further parts."
                )
            if not trained:
                raise UserError(
                    f"phase {phase.name} trains nothing. Name parts in train, for example [head]."
                )
            # by what was chosen: a norm policy must not switch off the dropout around the norms
            modes = parts.modes(chosen, phase.norms, phase.dropout)
            self.states.append(PhaseState(trained, added, rates, absolute, modes))
        self._check_rates()

    def signature(self, name: str) -> tuple[object, ...]:
        """Return what decides a parameter's rate over time; equal ones can share a group."""
        return self.thawed_in.get(name), tuple(
            (name in state.trained, state.rates.get(name, 1.0), state.absolute.get(name))
            for state in self.states
        )

    def rate(
        self, name: str, base: float, scheduled: float, step: int, timeline: Timeline,
        transitions: Sequence[Transition] = (),
    ) -> float:  # fmt: skip
        """Return a parameter's rate at an optimiser step.

        Args:
            name: of the parameter.
            base: its peak rate in the optimizer.
            scheduled: the scheduler's factor on it, in [0, 1] as a rule.
            step: optimiser steps taken so far.
            timeline: of the same phases.
            transitions: so far.
        """
        index = timeline.phase_at(step, transitions)
        state, phase = self.states[index], self.phases[index]
        if name not in state.trained:
            return 0.0
        factor = phase.curve(timeline.progress(step, transitions)) if phase.curve else scheduled
        thawed = self.thawed_in[name]
        since = step - (timeline.starts(transitions)[thawed] or 0)
        where = f"phase {self.phases[thawed].name}: warmup"
        factor *= warmup_factor(self.phases[thawed].warmup, since, timeline, where)
        peak = state.absolute.get(name, base * phase.scale)
        return factor * peak * state.rates.get(name, 1.0)

    def _selected(self, selectors: Sequence[Selector], where: str) -> Names:
        return frozenset(n for s in selectors for n in self.parts.select(s, where))

    def _trained(self, phase: Phase, chosen: Names) -> Names:
        affine = self.parts.affine()
        if phase.norms in ("frozen", "adapt_statistics"):
            return chosen - affine
        if phase.norms in ("train_affine", "train"):
            return chosen | affine
        return chosen

    def _rates(self, phase: Phase) -> dict[str, float]:
        found: dict[str, float] = {}
        last = len(self.parts.groups) - 1
        if (phase.decay is not None or phase.spread is not None) and last < 1:
            raise UserError(
                f"phase {phase.name}: the model has one layer group, so its rates would be all "
                "the same. Remove decay and spread."
            )
        for name, group in decay_ids(self.parts).items():
            if phase.decay is not None:
                found[name] = phase.decay ** (last - group)
            if phase.spread is not None:
                found[name] = found.get(name, 1.0) * phase.spread ** -((last - group) / last)
        for selector, factor in phase.rates.items():
            for name in self.parts.select(selector, f"phase {phase.name}: rates"):
                found[name] = factor
        return found

    def _absolute(self, phase: Phase, added: Names) -> dict[str, float]:
        if phase.lr is None:
            return {}
        if not isinstance(phase.lr, Mapping):
            return dict.fromkeys(added, phase.lr)
        where = f"phase {phase.name}: lr"
        return {n: v for s, v in phase.lr.items() for n in self.parts.select(s, where)}

    def _same(self, phase: Phase, before: Phase) -> bool:
        plain = (
            all(value is None for value in (phase.lr, phase.decay, phase.spread, phase.curve))
            and not phase.rates
            and phase.momentum is before.momentum
        )
        modes = (phase.norms, phase.dropout) == (before.norms, before.dropout)
        return plain and modes and before.curve is None and phase.scale == before.scale

    def _check_rates(self) -> None:
        for phase in self.phases:
            absolute = phase.lr if isinstance(phase.lr, Mapping) else {}
            given = [*(("rates", s) for s in phase.rates), *(("lr", s) for s in absolute)]
            for key, selector in given:
                named = self.parts.select(selector, f"phase {phase.name}: {key}")
                if not named & frozenset(self.thawed_in):
                    raise UserError(
                        f"phase {phase.name}: {key}.{selector} is for a part that no phase trains. "
                        "Add it to train, or remove the rate."
                    )
