"""The schedule language: phases as data, and where a step lies in them, as pure functions."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

from transferlab.errors import UserError

Selector = str | int
Norms = Literal["follow", "frozen", "adapt_statistics", "train_affine", "train"]
Dropout = Literal["follow", "frozen", "train"]


@dataclass(frozen=True)
class Span:
    """A length: in optimiser steps, in epochs, or as a share of the whole budget; one of them."""

    steps: int | None = None
    epochs: float | None = None
    share: float | None = None

    def resolve(self, steps: int, steps_per_epoch: float, where: str) -> int:
        """Return the length in whole optimiser steps, one at the least; see :meth:`exact`."""
        return max(round(self.exact(steps, steps_per_epoch, where)), 1)

    def exact(self, steps: int, steps_per_epoch: float, where: str) -> float:
        """Return the length in optimiser steps.

        Args:
            steps: the whole budget.
            steps_per_epoch: optimiser steps of one pass over the training images.
            where: for the error.

        Raises:
            UserError: not exactly one unit, or a length that is not positive.
        """
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        named = {name: value for name, value in given.items() if value is not None}
        if len(named) != 1:
            raise UserError(
                f"{where}={named or 'nothing'}: give one of steps, epochs and share, "
                "for example {share: 0.5}."
            )
        ((unit, value),) = named.items()
        value = float(value)
        if not 0 < value < math.inf or (unit == "share" and value > 1):
            raise UserError(f"{where}.{unit}={value}: expected a positive length.")
        return {"steps": 1.0, "epochs": steps_per_epoch, "share": float(steps)}[unit] * value


@dataclass(frozen=True)
class Plateau:
    """An end decided from data: the validation score has stopped rising.

    Args:
        patience: validations in a row without a new best of this phase.
        min_delta: how much better a new best must be.
        at_most: the phase ends then in any case.
        restore: go back to the weights and buffers of the phase's best validation; the
            optimizer's state is cleared, and the step goes on counting.
    """

    patience: int = 1
    min_delta: float = 0.0
    at_most: Span | None = None
    restore: bool = True


@dataclass(frozen=True)
class Warmup:
    """A rise of the rate that starts when a part thaws.

    Linear over a length, or in steps by a factor: ``start``, ``start * factor``, ... up to 1, one
    factor every ``every``.
    """

    length: Span | None = None
    start: float = 0.0
    factor: float | None = None
    every: Span | None = None


@dataclass(frozen=True)
class Phase:
    """What changes when a phase begins; what earlier phases train goes on training.

    Args:
        name: of the phase.
        train: selectors of parts that train from here on.
        until: its length, a plateau, or None in the last phase.
        lr: absolute peak rate, of the parts this phase adds or by selector; ``rates``, ``decay``
            and ``spread`` of the same phase are factors on it.
        scale: factor on all relative rates, in this phase.
        rates: factors on the optimizer's rate, by selector; they hold until named again.
        decay: each layer group trains at this factor of the one above it; in (0, 1).
        spread: the head's rate over the stem's, in even ratios between them; above 1.
        warmup: of the parts this phase adds.
        rebase: for the parts this phase adds, the scheduler's factor counts from its value when
            they thaw, as if the scheduler had just started with them.
        curve: (progress of the phase in [0, 1)) -> factor; takes the scheduler's place.
        momentum: the same for the optimizer's momentum or first beta.
        norms: what norm layers of the backbone do, in this phase.
        dropout: what dropout and drop-path of the backbone do, in this phase.
    """

    name: str
    train: tuple[Selector, ...] = ()
    until: Span | Plateau | None = None
    lr: float | Mapping[Selector, float] | None = None
    scale: float = 1.0
    rates: Mapping[Selector, float] = field(default_factory=dict)
    decay: float | None = None
    spread: float | None = None
    warmup: Warmup | None = None
    rebase: bool = False
    curve: Callable[[float], float] | None = None
    momentum: Callable[[float], float] | None = None
    norms: Norms = "follow"
    dropout: Dropout = "follow"


@dataclass(frozen=True)
class Transition:
    """A phase end that was decided from data: phase number, and the step it ended at."""

    phase: int
    step: int


class Timeline:
    """When phases start; a pure function of the schedule and the transitions so far.

    Args:
        phases: in order; all but the last have an end.
        steps: the whole budget in optimiser steps.
        steps_per_epoch: optimiser steps of one pass over the training images.

    Raises:
        UserError: a phase without an end before the last, an end on the last, or ends that
            leave nothing of the budget for a later phase.
    """

    def __init__(self, phases: Sequence[Phase], steps: int, steps_per_epoch: float) -> None:
        self.steps, self.steps_per_epoch = steps, steps_per_epoch
        self.lengths = [self._length(phase) for phase in phases]
        self.phases = list(phases)
        for phase in phases[:-1]:
            if phase.until is None:
                raise UserError(
                    f"phase {phase.name} has no end, but {phases[-1].name} comes after it. Give "
                    "it until: {share: ...}, {steps: ...}, {epochs: ...} or {plateau: ...}."
                )
        last = phases[-1].until
        if last is not None:
            raise UserError(
                f"phase {phases[-1].name} is the last and lasts to the end of the budget. "
                "Remove its until."
            )
        sure = sum(  # a plateau takes one step at the least
            1 if isinstance(phase.until, Plateau) else length or 0
            for phase, length in zip(phases[:-1], self.lengths[:-1], strict=True)
        )
        if sure >= steps:
            ends = ", ".join(
                f"{p.name} {n}" for p, n in zip(phases, self.lengths, strict=True) if n
            )
            raise UserError(
                f"phases of {sure} optimiser steps ({ends}) leave none of the budget of {steps} "
                f"for {phases[-1].name}. Shorten them, or raise budget.steps."
            )

    def starts(self, transitions: Sequence[Transition] = ()) -> list[int | None]:
        """Return the first step of each phase; None where that is not known yet."""
        decided = {t.phase: t.step for t in transitions}
        starts: list[int | None] = [0]
        for index, phase in enumerate(self.phases[:-1]):
            begun, length = starts[-1], self.lengths[index]
            if begun is None:
                starts.append(None)
            elif index in decided:
                starts.append(decided[index])
            elif isinstance(phase.until, Plateau):
                starts.append(None if length is None else begun + length)
            else:
                starts.append(begun + (length or 0))
        return starts

    def extent(self, index: int, transitions: Sequence[Transition] = ()) -> int:
        """Return how many optimiser steps a phase that has begun takes, at the most."""
        starts = [*self.starts(transitions), self.steps]
        end = next(start for start in starts[index + 1 :] if start is not None)
        return end - (starts[index] or 0)

    def phase_at(self, step: int, transitions: Sequence[Transition] = ()) -> int:
        """Return the number of the phase that optimiser step ``step`` (from 0) belongs to."""
        begun = [
            i for i, at in enumerate(self.starts(transitions)) if at is not None and at <= step
        ]
        return begun[-1]

    def progress(self, step: int, transitions: Sequence[Transition] = ()) -> float:
        """Return the share of its phase that is over when ``step`` begins, in [0, 1]."""
        starts = self.starts(transitions)
        phase = self.phase_at(step, transitions)
        begin = starts[phase] or 0
        following = starts[phase + 1] if phase + 1 < len(starts) else self.steps
        end = self.steps if following is None else following
        return min((step - begin) / max(end - begin, 1), 1.0)

    def span(self, length: Span, where: str) -> int:
        """Return a length in optimiser steps."""
        return length.resolve(self.steps, self.steps_per_epoch, where)

    def _length(self, phase: Phase) -> int | None:
        where = f"phase {phase.name}: until"
        if isinstance(phase.until, Span):
            return self.span(phase.until, where)
        if isinstance(phase.until, Plateau) and phase.until.at_most is not None:
            return self.span(phase.until.at_most, f"{where}.plateau.at_most")
        return None


def plateaued(scores: Sequence[float], patience: int, min_delta: float = 0.0) -> bool:
    """Say whether the last ``patience`` scores of a phase brought no new best, higher is better."""
    best, since = -math.inf, 0
    for score in scores:
        if score > best + min_delta:
            best, since = score, 0
        else:
            since += 1
    return since >= patience


def warmup_factor(warmup: Warmup | None, since: int, timeline: Timeline, where: str) -> float:
    """Return the factor on the rate of a part, ``since`` optimiser steps after it thawed."""
    if warmup is None:
        return 1.0
    if warmup.factor is not None:
        every = timeline.span(warmup.every or Span(epochs=1), f"{where}.every")
        return min(warmup.start * warmup.factor ** (since // every), 1.0)
    rise = timeline.span(warmup.length or Span(share=0.1), f"{where}.length")
    if since >= rise:
        return 1.0
    return warmup.start + (1 - warmup.start) * (since + 1) / (rise + 1)
