"""Whom transfer serves: its gain class by class, and the gaps between groups of images."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from transferlab.analysis.facts import Table
from transferlab.analysis.formats import NOTHING, count, interval, listing, p_value, percent, points
from transferlab.analysis.pairs import Pairs
from transferlab.records import Record
from transferlab.stats.groups import GroupScores, accuracy_by_group, gap_change, partitions
from transferlab.stats.per_class import ClassGain, gains_by_class

CROSSED = 2
"""Columns that are crossed at most: more of them leave groups of a few images."""


def class_gains(pairs: Pairs, names: Sequence[Any]) -> Record | None:
    """The gain within every class, in accuracy; None with fewer than two pairs.

    Args:
        pairs: of two arms.
        names: of the classes, by label.
    """
    if len(pairs.seeds) < 2:
        return None
    transfer, scratch = _correct(pairs)
    kinds, positions = np.unique(pairs.scratch[0].labels, return_inverse=True)
    labels = np.array([_named(names, kind) for kind in kinds])[positions]
    found = gains_by_class(transfer, scratch, labels, clusters=pairs.clusters())
    return {
        "summary": found.summary,
        **{
            key: list(getattr(found, key))
            for key in ("harmed", "helped", "surely_harmed", "surely_helped")
        },
        "classes": [_class_record(gain) for gain in found.classes],
    }


def group_gaps(pairs: Pairs) -> list[Record]:
    """Accuracy by group for every column that the target reports by, and their crossings."""
    columns = pairs.scratch[0].facts
    if not columns:
        return []
    transfer, scratch = _correct(pairs)
    return [
        _group_record(name, transfer, scratch, groups)
        for name, groups in partitions(columns, depth=CROSSED).items()
    ]


def class_table(records: Sequence[Record]) -> Table | None:
    """One row an arm: how many classes it harms and helps, and which."""
    rows = []
    for record in records:
        found = record.get("per_class")
        if found:
            some = [_some(found[key]) for key in ("harmed", "helped", "surely_harmed")]
            rows.append([record["arm"], found["summary"], *some])
    head = ["arm", "classes", "harmed", "helped", "harmed, confirmed"]
    note = (
        "A class is harmed or helped at a false discovery rate of 10 % (Benjamini-Hochberg), "
        "which explores; confirmed is at 5 % over all classes (Holm). Classes with fewer than 30 "
        "test images are counted only. verdicts.json has every class's figures."
    )
    return Table(head, rows, words=5, note=note) if rows else None


def group_table(records: Sequence[Record]) -> Table | None:
    """One row for each arm and way of grouping: the worst group, the gap, what transfer adds."""
    rows = []
    for record in records:
        for found in record.get("groups") or []:
            sides = [
                text
                for side in ("transfer", "scratch")
                for text in (_worst(found[side]), points(found[side]["gap"], signed=False))
            ]
            added = found["added_gap"]
            low, high = added["ci95"] or (None, None)
            p = NOTHING if added["p"] is None else p_value(added["p"])
            rows.append([record["arm"], found["by"], *sides, points(added["delta"])])
            rows[-1] += [interval(low, high), p]
    head = ["arm", "grouped by", "worst group", "gap", "worst, from scratch", "gap, from scratch"]
    note = (
        "Accuracy in percent. The gap is between the best and the worst group, of those with "
        "enough images; several noisy groups always show one, so read it beside scratch's. The "
        "interval of the added gap is over replicates, conditional on this test set."
    )
    head += ["added gap", "95 % interval", "p"]
    return Table(head, rows, words=2, note=note) if rows else None


def _correct(pairs: Pairs) -> tuple[Any, Any]:
    """(n, M) right or wrong, of both sides."""
    transfer = np.stack([answers.correct for answers in pairs.transfer])
    return transfer, np.stack([answers.correct for answers in pairs.scratch])


def _named(names: Sequence[Any], label: Any) -> str:
    number = int(label)
    return str(names[number]) if number < len(names) else str(number)


def _class_record(gain: ClassGain) -> Record:
    low, high = gain.ci95
    return {
        "class": gain.label,
        "n_items": gain.n_items,
        "gained": gain.gained,
        "lost": gain.lost,
        "delta": _known(gain.delta),
        "ci95": None if math.isnan(low) else [low, high],
        "p_sign": _known(gain.p_sign),
        "p_fdr": _known(gain.p_fdr),
        "p_holm": _known(gain.p_holm),
        "reason": gain.reason or None,
    }


def _group_record(name: str, transfer: Any, scratch: Any, groups: Any) -> Record:
    added = gap_change(transfer, scratch, groups)
    return {
        "by": name,
        "transfer": _scores_record(accuracy_by_group(transfer, groups)),
        "scratch": _scores_record(accuracy_by_group(scratch, groups)),
        "added_gap": {
            "delta": _known(added.delta),
            "ci95": None if math.isnan(added.ci95[0]) else list(added.ci95),
            "p": _known(added.p),
            "reason": added.reason or None,
        },
    }


def _scores_record(found: GroupScores) -> Record:
    return {
        "accuracy": dict(zip(found.groups, found.accuracies, strict=True)),
        "counts": dict(zip(found.groups, found.counts, strict=True)),
        "worst": found.worst or None,
        "worst_accuracy": _known(found.worst_accuracy),
        "gap": _known(found.gap),
    }


def _worst(found: Mapping[str, Any]) -> str:
    if found["worst"] is None:
        return "too few images a group"
    return f"{found['worst']}: {percent(found['worst_accuracy'])}"


def _some(names: Sequence[str]) -> str:
    if not names:
        return NOTHING
    return listing(list(names)) if len(names) <= 6 else count(len(names), "class", "classes")


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
