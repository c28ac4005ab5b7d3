"""Tuning: the same trials for every arm, scored on validation, the smaller rate on ties."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Settings = tuple[tuple[str, Any], ...]
"""One point of a grid: (key, value) pairs in the grid's order."""


@dataclass(frozen=True)
class Choice:
    """What tuning found for one arm.

    Attributes:
        best: the chosen point.
        edges: the numeric keys whose best value is an end of its grid -> ``low`` or ``high``.
    """

    best: Settings
    edges: Mapping[str, str]


def points(grid: Mapping[str, Sequence[Any]]) -> list[Settings]:
    """List the points of a grid, smaller numbers first."""
    ordered = {key: _ordered(values) for key, values in grid.items()}
    return [
        tuple(zip(ordered, values, strict=True)) for values in itertools.product(*ordered.values())
    ]


def choose(grid: Mapping[str, Sequence[Any]], scores: Mapping[Settings, Sequence[float]]) -> Choice:
    """Choose the point with the best mean validation score; ties go to the smaller values.

    Args:
        grid: key -> values.
        scores: point -> one score a tuning seed, higher is better; NaN counts as 0, the worst of
            a share.
    """
    best = max(points(grid), key=lambda point: mean_score(scores[point]))  # keeps the first of ties
    return Choice(best, {key: end for key, value in best if (end := end_of(grid[key], value))})


def end_of(values: Sequence[Any], value: Any) -> str | None:
    """Return the end of a list of numbers that a value is: ``low``, ``high`` or None."""
    ordered = _ordered(values)
    if not _numeric(ordered):
        return None
    return "high" if value == ordered[-1] else "low" if value == ordered[0] else None


def is_budget(key: str) -> bool:
    """Say whether a key sets a budget: more steps than those offered are no better rate."""
    return key.partition(".")[0] == "budget"


def extended(
    grid: Mapping[str, Sequence[Any]], choices: Sequence[Choice]
) -> dict[str, list[Any]] | None:
    """Grow the grid by one value at every end that won in any arm, for all arms alike.

    The step is the ratio of the two values at that end. A grid of one value has no step.

    Returns:
        the larger grid, or None where no end won.
    """
    grown = {key: list(_ordered(values)) for key, values in grid.items()}
    changed = False
    for key, values in grown.items():
        ends = {choice.edges[key] for choice in choices if key in choice.edges}
        if is_budget(key):
            continue
        if not _numeric(values) or len(values) < 2 or min(values) <= 0:
            continue
        low, high = values[0] ** 2 / values[1], values[-1] ** 2 / values[-2]
        grown[key] = (
            ([_rounded(low)] if "low" in ends else [])
            + values
            + ([_rounded(high)] if "high" in ends else [])
        )
        changed |= bool(ends)
    return grown if changed else None


def _ordered(values: Sequence[Any]) -> list[Any]:
    return sorted(values) if _numeric(values) else list(values)


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def mean_score(values: Sequence[float]) -> float:
    """Return the mean of scores of which NaN counts as 0."""
    known = [0.0 if math.isnan(value) else value for value in values]
    return sum(known) / len(known) if known else 0.0


def _rounded(value: float) -> float:
    """Round to three digits, so that a grid of 1, 3, 10 goes on as people would write it."""
    return float(f"{value:.3g}")
