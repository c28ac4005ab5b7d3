"""The report's pictures for one cell: verdict rows, replicate strips, learning curves."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from transferlab.analysis.arms import Arm, Cell
from transferlab.analysis.figures import Curve, Panel, Scale, axis, bar, curves, mean_curve, strip
from transferlab.analysis.formats import Unit, count, interval, p_value, points, unit_of
from transferlab.analysis.terms import FLAGS
from transferlab.analysis.words import metric_words, size_words, strategy_words, word_of
from transferlab.records import Record

GLYPHS = {
    "positive": "▲",
    "negative": "▼",
    "equivalent": "=",
    "inconclusive": "?",
    "not_assessable": "–",
}

ABOUT_EQUIVALENCE = ("margin_below_test_floor", "margin_below_one_item")
"""Flags that say nothing to somebody who reads that an arm helps or hurts."""

IMPLIED = {
    "missing_runs": ("missing_pairs", "few_replicates"),
    "unstable_arm": ("diverged_runs",),
}
"""Flags that a reason says as well."""

View = dict[str, Any]


def arm_name(arm: Arm | Mapping[str, Any]) -> str:
    """How a table or a picture names an arm; an id that says the same is not repeated."""
    declared = arm.declared if isinstance(arm, Arm) else arm
    role = declared.get("role", "transfer")
    if role == "scratch":
        return "scratch"
    return str(declared["id"])


def title(cell: Cell) -> str:
    """A cell's heading: its target and size."""
    size = size_words(cell.size())
    extras = [f"{key}={value}" for key, value in extras_of(cell).items()]
    return ", ".join([str(cell.declared.get("target") or cell.first("target")), size, *extras])


def extras_of(cell: Cell) -> Record:
    """What sets a cell apart besides its target and size."""
    said = (
        *("target", "target.name", "target.root", "target.shots", "target.fraction"),
        *("backbone", "backbone.name"),
    )
    values = cell.declared.get("values") or {}
    return {key: value for key, value in values.items() if key not in said}


def subtitle(cell: Cell) -> str:
    """The line under a cell's heading: backbone and test images."""
    parts = [str(cell.declared.get("backbone") or cell.first("backbone") or "")]
    if cell.first("n_test"):
        parts.append(count(int(cell.first("n_test")), "test image"))
    if cell.first("budget_steps"):
        parts.append(count(int(cell.first("budget_steps")), "step"))
    return " · ".join(part for part in parts if part)


def verdict_rows(verdicts: Sequence[Record]) -> View:
    """The forest of one cell: a row for each arm, and the axis they share."""
    scale = _scale(verdicts)
    common = _common_flags(verdicts)
    return {
        "rows": [_verdict_row(verdict, scale, common) for verdict in verdicts],
        "axis": axis(scale, _axis_words(verdicts[0]), unit_of(verdicts[0]["metric"])),
        "caption": _caption(verdicts),
        "common": [FLAGS.get(flag, flag.replace("_", " ")) for flag in common],
    }


def replicate_rows(verdicts: Sequence[Record]) -> View:
    """Every replicate's gain as a point, arm by arm."""
    scale = _scale(verdicts)
    rows = []
    for verdict in verdicts:
        values = [float(value) for value in verdict["per_replicate_delta"]]
        if not values:
            continue
        unit = unit_of(verdict["metric"])
        label = f"{verdict['arm']}: " + ", ".join(points(value, unit=unit) for value in values)
        rows.append(
            {
                "kind": verdict["verdict"],
                "name": verdict["arm"],
                "strip": strip(scale, verdict["delta_margin"], values, label),
                "mean": points(verdict["delta"], unit=unit),
                "note": _spread(values, unit),
            }
        )
    words = _axis_words(verdicts[0])
    return {"rows": rows, "axis": axis(scale, words, unit_of(verdicts[0]["metric"]))}


def curve_panels(cell: Cell, verdicts: Mapping[str, Record]) -> list[View]:
    """One small picture for each arm, all on the same axes, scratch's mean in each."""
    metric = str(cell.first("metric") or "accuracy")
    by_arm = {arm.id: _curves(arm, metric) for arm in cell.arms}
    everything = [point for seeds in by_arm.values() for curve in seeds for point in curve]
    if not everything:
        return []
    panel = Panel(
        Scale(0.0, max(step for step, _ in everything) or 1.0),
        Scale.over([score for _, score in everything]),
    )
    scratch = cell.scratch()
    reference = mean_curve(by_arm[scratch.id]) if scratch else []
    views = []
    for arm in cell.arms:
        seeds = by_arm[arm.id]
        if not seeds:
            continue
        own = scratch is not None and arm.id == scratch.id
        last = mean_curve(seeds)[-1]
        label = f"{arm.id}: mean validation {metric_words(metric)} {100 * last[1]:.1f} at the end"
        views.append(
            {
                "name": arm_name(arm),
                "kind": verdicts[arm.id]["verdict"] if arm.id in verdicts else "reference",
                "svg": curves(panel, seeds, [] if own else reference, label),
                "note": f"{count(len(seeds), 'seed')}, ends at {100 * last[1]:.1f}",
            }
        )
    return views


def decomposition(verdicts: Sequence[Record]) -> list[list[str]]:
    """Rows that split a frozen arm's gain into the source's value and the cost of freezing."""
    rows = []
    for verdict in verdicts:
        parts = verdict.get("control")
        if not parts or parts["source_value"] is None:
            continue
        row = [verdict["arm"]]
        unit = unit_of(verdict["metric"])
        for part in (verdict, parts["source_value"], parts["freezing_cost"]):
            low, high = part["ci95"] or (None, None)
            row += [points(part["delta"], unit=unit), interval(low, high, unit=unit)]
        rows.append(row)
    return rows


def _common_flags(verdicts: Sequence[Record]) -> list[str]:
    """Flags that every measured row of a cell has: said once below them."""
    flags = [verdict["flags"] for verdict in verdicts if verdict["n_pairs"]]
    if len(flags) < 2:
        return []
    return [flag for flag in flags[0] if all(flag in other for other in flags)]


def _row_flags(verdict: Record, common: Sequence[str]) -> list[str]:
    """A row's flags in words, without what its sentence or the caption says already."""
    hidden = {*common, verdict["reason"], *IMPLIED.get(verdict["reason"], ())}
    if verdict["reason"] is None:
        hidden.add("test_set_limits")
    if verdict["verdict"] in ("positive", "negative"):
        hidden.update(ABOUT_EQUIVALENCE)
    return [
        FLAGS.get(flag, flag.replace("_", " ")) for flag in verdict["flags"] if flag not in hidden
    ]


def _verdict_row(verdict: Record, scale: Scale, common: Sequence[str]) -> View:
    low, high = verdict["ci95"] or (None, None)
    word, unit = word_of(verdict), unit_of(verdict["metric"])
    gain, around = points(verdict["delta"], unit=unit), interval(low, high, unit=unit)
    spoken = f"{verdict['arm']}: {word}, gain {gain}, {around}"
    contrast = verdict.get("question") == "contrast"
    return {
        "kind": verdict["verdict"],
        "glyph": GLYPHS[verdict["verdict"]],
        "word": word,
        "name": verdict["arm"]
        if contrast
        else f"{strategy_words(verdict['strategy'])} from {verdict['source']}",
        "id": verdict["arm"] if verdict["alike"] and not contrast else None,
        "bar": bar(scale, verdict["delta_margin"], verdict, spoken),
        "gain": gain if verdict["delta"] is not None else "",
        "interval": around if verdict["ci95"] else "",
        "p": "" if verdict["p_sign_holm"] is None else p_value(verdict["p_sign_holm"]),
        "sentence": verdict["sentence"],
        "flags": _row_flags(verdict, common),
    }


def _spread(values: Sequence[float], unit: Unit) -> str:
    better = sum(value > 0 for value in values)
    return f"median {points(statistics.median(values), unit=unit)}, {better}/{len(values)} up"


def _axis_words(verdict: Record) -> str:
    return f"{unit_of(verdict['metric']).noun} against {verdict.get('against') or 'scratch'}"


def _scale(verdicts: Sequence[Record]) -> Scale:
    """One axis for a cell's rows: zero, the margin, every interval and every replicate."""
    values = [0.0]
    for verdict in verdicts:
        margin = verdict["delta_margin"]
        values += [-2 * margin, 2 * margin, *verdict["per_replicate_delta"]]
        values += [*(verdict["ci95"] or ())]
    # A family interval may be far wider than all else: the edge cuts it, the axis isn't stretched.
    return Scale.over(values)


def _caption(verdicts: Sequence[Record]) -> str:
    first = verdicts[0]
    unit = unit_of(first["metric"])
    margin = f"{unit.scale * first['delta_margin']:g}"
    other = first.get("against") or "scratch"
    other = "training from scratch" if other == "scratch" else other
    noun = unit.noun[0].upper() + unit.noun[1:]
    text = f"{noun} of test {metric_words(first['metric'])} against {other}."
    text += " Thick bar: 95 % interval."
    if any(verdict["ci95_family"] for verdict in verdicts):
        text += f" Thin bar: the same, allowing for {_corrections(first)}."
    return text + f" Shaded: the margin of ±{margin} that counts as no difference that matters."


def _corrections(verdict: Record) -> str:
    text = count(verdict["family"]["m"], "comparison")
    looks = verdict["look"]["of"]
    return text + (f" and {count(looks, 'planned look')}" if looks > 1 else "")


def _curves(arm: Arm, metric: str) -> list[Curve]:
    found: list[Curve] = []
    for _, run in sorted(arm.runs.items()):
        curve = [
            (float(entry["step"]), float(score))
            for entry in run.get("curve") or []
            if (score := entry.get(f"validation_{metric}", entry.get("validation_accuracy")))
            is not None
        ]
        if curve:
            found.append(curve)
    return found
