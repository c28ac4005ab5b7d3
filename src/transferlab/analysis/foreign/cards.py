"""The cards of one target of a foreign table: verdicts as a forest, replicates as strips."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from transferlab.analysis.figures import Scale, axis, bar, strip
from transferlab.analysis.foreign.options import Options
from transferlab.analysis.foreign.words import arm_words, flag_words
from transferlab.analysis.formats import count, interval, p_value, points
from transferlab.analysis.gains import ABOUT_EQUIVALENCE, GLYPHS, IMPLIED
from transferlab.analysis.terms import WORDS
from transferlab.analysis.words import metric_words
from transferlab.records import Record

View = dict[str, Any]
Records = Sequence[Record]


def card(own: Records, options: Options, common: Sequence[str]) -> View:
    """The forest of one target: a row for each arm, and the axis they share."""
    unit = options.unit
    scale = _scale(own, options)
    corrected = count(own[0]["family"]["m"], "comparison")
    text = f"Gain in test {metric_words(options.metric)} against training from scratch"
    text += f", in {unit.noun}." if unit.noun else "."
    text += f" Thick bar: 95 % interval. Thin bar: the same, allowing for {corrected}. Shaded: "
    text += f"the margin of ±{unit.scale * options.margin:g} that counts as no difference that "
    return {
        "rows": [_row(verdict, scale, options, common) for verdict in own],
        "axis": axis(scale, "gain against scratch", unit),
        "caption": text + "matters.",
        "common": [],
    }


def _row(verdict: Record, scale: Scale, options: Options, common: Sequence[str]) -> View:
    unit, word = options.unit, WORDS[verdict["verdict"]]
    gain = points(verdict["delta"], unit=unit)
    around = interval(*(verdict["ci95"] or (None, None)), unit=unit)
    p = verdict["p_sign_holm"]
    return {
        "kind": verdict["verdict"],
        "glyph": GLYPHS[verdict["verdict"]],
        "word": word,
        "name": arm_words(verdict["source"], verdict["strategy"]),
        "id": None,
        "bar": bar(scale, options.margin, verdict, f"{verdict['arm']}: {word}, {gain}, {around}"),
        "gain": gain if verdict["delta"] is not None else "",
        "interval": around if verdict["ci95"] else "",
        "p": "" if p is None else p_value(p),
        "sentence": verdict["sentence"],
        "flags": [flag_words(flag) for flag in _own_flags(verdict, common)],
    }


def _own_flags(verdict: Record, common: Sequence[str]) -> list[str]:
    """A row's flags, without what its sentence or the top of the page says already."""
    hidden = {*common, verdict["reason"], *IMPLIED.get(verdict["reason"], ())}
    hidden.add("conditional_on_test_set")
    if verdict["verdict"] in ("positive", "negative"):
        hidden.update(ABOUT_EQUIVALENCE)
    return [flag for flag in verdict["flags"] if flag not in hidden]


def strips(own: Records, options: Options) -> View:
    """Every pair's gain as a point, arm by arm."""
    scale = _scale(own, options)
    rows = [
        strip_row(verdict, verdict["per_replicate_delta"], verdict["verdict"], scale, options)
        for verdict in own
        if verdict["per_replicate_delta"]
    ]
    return {"rows": rows, "axis": axis(scale, "gain against scratch", options.unit)}


def strip_row(
    record: Record, values: Sequence[float], kind: str, scale: Scale, options: Options
) -> View:
    """Gains of one arm as points, with their mean and median."""
    unit = options.unit
    label = f"{record['arm']}: " + ", ".join(points(value, unit=unit) for value in values)
    return {
        "kind": kind,
        "name": arm_words(record["source"], record["strategy"]),
        "strip": strip(scale, options.margin, values, label),
        "mean": points(sum(values) / len(values), unit=unit),
        "note": f"median {points(median(values), unit=unit)}",
    }


def _scale(own: Records, options: Options) -> Scale:
    """One axis for a card's rows: zero, the margin, every interval and every replicate."""
    values = [0.0, -2 * options.margin, 2 * options.margin]
    for verdict in own:
        values += [*verdict["per_replicate_delta"], *(verdict["ci95"] or ())]
    return Scale.over(values)
