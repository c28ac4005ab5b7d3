"""Small inline SVGs: interval bars, strips of points, learning curves.

Bars and strips place everything by percentage, so they take any width and their text keeps its
size. Colours come from the page's classes, so light and dark share one drawing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from transferlab.analysis.formats import MINUS, POINTS, Unit

Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Scale:
    """A linear axis from low to high."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float], pad: float = 0.06) -> "Scale":
        """An axis that holds every value, with some air at both ends."""
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        air = pad * (high - low) or 0.01
        return cls(low - air, high + air)

    def at(self, value: float) -> float:
        """Where a value lies, in percent of the axis."""
        return 100 * (value - self.low) / (self.high - self.low)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values inside the axis, about that many."""
        rough = (self.high - self.low) / about
        magnitude = 10.0 ** math.floor(math.log10(rough))
        step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def axis(scale: Scale, caption: str, unit: Unit = POINTS) -> Markup:
    """The axis under a column of bars, in the metric's unit; the drawing is 100 % wide."""
    texts = []
    for tick in scale.ticks():
        at = scale.at(tick)
        anchor = "start" if at < 4 else "end" if at > 96 else "middle"
        label = f"{unit.scale * tick:+g}".replace("-", MINUS) if abs(tick) > 1e-9 else "0"
        texts.append(
            f'<line x1="{at:.2f}%" x2="{at:.2f}%" y1="0" y2="4" class="tick"/>'
            f'<text x="{at:.2f}%" y="16" text-anchor="{anchor}">{label}</text>'
        )
    return Markup(
        f'<svg class="axis" height="20" role="img" aria-label="{escape(caption)}">'
        f"{''.join(texts)}</svg>"
    )


def bar(scale: Scale, margin: float, row: Mapping[str, object], label: str) -> Markup:
    """An interval bar: thick for 95 %, thin for the family-adjusted one, a dot for the gain."""
    parts = [_backdrop(scale, margin, 34)]
    family, ci95, delta = row.get("ci95_family"), row.get("ci95"), row.get("delta")
    if isinstance(family, list | tuple):
        parts.append(_span(scale, family, "family"))
    if isinstance(ci95, list | tuple):
        parts.append(_span(scale, ci95, "ci"))
    if isinstance(delta, int | float):
        parts.append(f'<circle cx="{scale.at(delta):.2f}%" cy="17" r="5" class="dot"/>')
    return _row(parts, label, 34)


def strip(scale: Scale, margin: float, values: Sequence[float], label: str) -> Markup:
    """Every replicate's gain as a point, the mean as a tick."""
    parts = [_backdrop(scale, margin, 34)]
    for index, value in enumerate(values):
        # A fixed zigzag keeps equal values apart and the drawing the same every time.
        height = 17 + (-5, 0, 5)[index % 3]
        parts.append(f'<circle cx="{scale.at(value):.2f}%" cy="{height}" r="3.5" class="point"/>')
    if values:
        at = scale.at(math.fsum(values) / len(values))
        parts.append(f'<line x1="{at:.2f}%" x2="{at:.2f}%" y1="4" y2="30" class="mean"/>')
    return _row(parts, label, 34)


@dataclass(frozen=True)
class Panel:
    """The frame that a cell's learning curves share: 300 by 170 units."""

    steps: Scale
    scores: Scale

    def path(self, curve: Curve, kind: str) -> str:
        """One curve as a polyline of that class."""
        points = " ".join(f"{self.x(step):.1f},{self.y(score):.1f}" for step, score in curve)
        return f'<polyline points="{points}" class="{kind}"/>'

    def x(self, step: float) -> float:
        """A step's place from the left."""
        return 38 + 2.5 * self.steps.at(step)

    def y(self, score: float) -> float:
        """A score's place from the top."""
        return 140 - 1.3 * self.scores.at(score)

    def frame(self) -> str:
        """Grid lines and their labels."""
        parts = []
        for tick in self.scores.ticks(4):
            y = self.y(tick)
            parts.append(
                f'<line x1="38" x2="288" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
                f'<text x="32" y="{y + 4:.1f}" text-anchor="end">{100 * tick:g}</text>'
            )
        for tick in self.steps.ticks(4):
            x = self.x(tick)
            parts.append(f'<text x="{x:.1f}" y="158" text-anchor="middle">{tick:g}</text>')
        return "".join(parts)


def curves(panel: Panel, seeds: Sequence[Curve], reference: Curve, label: str) -> Markup:
    """One arm's validation score over steps: seeds thin, mean thick, scratch's mean dashed."""
    lines = [panel.path(curve, "seed") for curve in seeds]
    if reference:
        lines.append(panel.path(reference, "reference"))
    lines.append(panel.path(mean_curve(seeds), "average"))
    return Markup(
        f'<svg class="curve" viewBox="0 0 300 166" role="img" aria-label="{escape(label)}">'
        f"{panel.frame()}{''.join(lines)}</svg>"
    )


def mean_curve(seeds: Sequence[Curve]) -> list[tuple[float, float]]:
    """The mean over seeds at every step that any of them was validated at."""
    at: dict[float, list[float]] = {}
    for curve in seeds:
        for step, score in curve:
            at.setdefault(step, []).append(score)
    return [(step, math.fsum(scores) / len(scores)) for step, scores in sorted(at.items())]


def _backdrop(scale: Scale, margin: float, height: int) -> str:
    low, width = scale.at(-margin), scale.at(margin) - scale.at(-margin)
    zero = scale.at(0)
    return (
        f'<rect x="{low:.2f}%" width="{width:.2f}%" y="0" height="{height}" class="band"/>'
        f'<line x1="{zero:.2f}%" x2="{zero:.2f}%" y1="0" y2="{height}" class="zero"/>'
    )


def _span(scale: Scale, bounds: Sequence[float], kind: str) -> str:
    low, high = (scale.at(bound) for bound in bounds)
    return f'<line x1="{low:.2f}%" x2="{high:.2f}%" y1="17" y2="17" class="{kind}"/>'


def _row(parts: Sequence[str], label: str, height: int) -> Markup:
    return Markup(
        f'<svg class="bar" height="{height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
