"""What a search may try, and which of its trials was best."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transferlab.errors import UserError, nearest
from transferlab.study.tuning import Choice, Settings, end_of, mean_score

NEAR = 0.05
"""Share of a range from its end, on its own scale, within which a best value is at that end."""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole ones where both are written whole."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are tried."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def place(self, value: float) -> float:
        """Return where a value lies between the ends, on the range's own scale: 0 to 1."""
        scale = math.log if self.log else float
        return (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))


Space = dict[str, Range | tuple[Any, ...]]
"""Key -> the range, or the choices, that its values are taken from."""


@dataclass
class Trial:
    """One trial of an arm.

    Attributes:
        settings: what was tried.
        scores: tuning seed -> validation score, higher is better.
        pruned: tuning seeds whose run was stopped before its end.
        curves: tuning seed -> validation scores of a run that was not, in order.
    """

    settings: Settings
    scores: dict[int, float] = field(default_factory=dict)
    pruned: list[int] = field(default_factory=list)
    curves: dict[int, list[float]] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The mean score over the seeds, as a grid counts it."""
        return mean_score(list(self.scores.values()))

    @property
    def stopped(self) -> bool:
        """Whether no run of it saw its last step: its score is of another budget."""
        return len(self.pruned) == len(self.scores) > 0


def read_space(declared: Any) -> Space:
    """Read ``study.tune.search``.

    Raises:
        UserError: names the key, what came in and what it may be.
    """
    if not isinstance(declared, dict) and declared is not None:
        raise UserError(
            f"study.tune.search={declared!r}: expected keys with what they may be, such as "
            "{optimizer.lr: {low: 1e-4, high: 1e-1, log: true}}."
        )
    return {
        str(key): _read(f"study.tune.search.{key}", found)
        for key, found in (declared or {}).items()
    }


def choose_trial(space: Space, trials: Sequence[Trial]) -> Choice:
    """Choose the trial with the best mean score; ties go to the smaller values.

    A trial that was stopped in all its runs is chosen only where every one was.
    """
    whole = [trial for trial in trials if not trial.stopped] or list(trials)
    best = min(whole, key=lambda trial: (-trial.value, _places(space, trial.settings)))
    edges = {key: end for key, value in best.settings if (end := _end(space[key], value))}
    return Choice(best.settings, edges)


def corners(space: Space) -> list[Settings]:
    """Return settings that together hold every end and every choice of a space."""
    values = {
        key: list(found) if isinstance(found, tuple) else [found.low, found.high]
        for key, found in space.items()
    }
    longest = max(map(len, values.values()))
    return [
        tuple((key, own[min(index, len(own) - 1)]) for key, own in values.items())
        for index in range(longest)
    ]


def _read(key: str, found: Any) -> Range | tuple[Any, ...]:
    if isinstance(found, list):
        return _choices(key, found)
    if not isinstance(found, dict) or not {"low", "high"} <= found.keys():
        raise UserError(
            f"{key}={found!r}: expected a range such as {{low: 1e-4, high: 1e-1, log: true}}, or a "
            "list of choices."
        )
    known = ("low", "high", "log", "step")
    for name in found:
        if name not in known:
            raise UserError(f"{key}: unknown key {name!r} ({nearest(name, known)}).")
    for name in ("low", "high", "step"):
        if not _is_number(found.get(name)) and not (name == "step" and found.get(name) is None):
            raise UserError(f"{key}.{name}={found[name]!r}: expected a number.")
    if not isinstance(found.get("log", False), bool):
        raise UserError(f"{key}.log={found['log']!r}: expected true or false.")
    made = Range(**found)
    _check_range(key, made)
    return made


def _choices(key: str, found: list[Any]) -> tuple[Any, ...]:
    plain = all(value is None or isinstance(value, bool | int | float | str) for value in found)
    if not plain or len({(type(value), value) for value in found}) != len(found) or len(found) < 2:
        raise UserError(
            f"{key}={found}: expected at least two different numbers, words or truth values."
        )
    return tuple(found)


def _check_range(key: str, made: Range) -> None:
    if not (math.isfinite(made.low) and math.isfinite(made.high)) or made.low >= made.high:
        raise UserError(f"{key}: low={made.low}, high={made.high}: low must lie below high.")
    if made.log and (made.low <= 0 or made.step is not None):
        raise UserError(
            f"{key}: log: true with low={made.low}, step={made.step}: a logarithmic range begins "
            "above 0 and has no step."
        )
    if made.step is None:
        return
    steps = (made.high - made.low) / made.step if made.step > 0 else 0.0
    if made.whole and not isinstance(made.step, int):
        raise UserError(f"{key}.step={made.step}: whole ends need a whole step.")
    if steps < 1 or abs(steps - round(steps)) > 1e-9 * steps:
        raise UserError(
            f"{key}.step={made.step}: it does not lead from low={made.low} to high={made.high}."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _places(space: Space, settings: Settings) -> list[float]:
    found = ((space[key], value) for key, value in settings)
    return [k.index(v) if isinstance(k, tuple) else k.place(v) for k, v in found]


def _end(kind: Range | tuple[Any, ...], value: Any) -> str | None:
    """Return the end that a value lies at, or None; choices have ends where they are numbers."""
    if isinstance(kind, tuple):
        return end_of(kind, value)
    place = kind.place(value)
    return "high" if place >= 1 - NEAR else "low" if place <= NEAR else None
