"""Transfer over the size of the target: cells that differ in nothing else, side by side."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transferlab.analysis.arms import Arm, Cell
from transferlab.analysis.facts import Table
from transferlab.analysis.formats import NOTHING, interval, p_value, points, unit_of
from transferlab.analysis.terms import WORDS
from transferlab.records import Record
from transferlab.stats.decision import holm
from transferlab.stats.learning_curve import (
    Crossover,
    DataEquivalent,
    crossover,
    data_equivalent,
    harm_slope,
)

SIZES = ("target.shots", "target.fraction")
SCORED = ("accuracy", "macro_recall")


@dataclass(frozen=True)
class Curve:
    """One arm over the sizes of a target.

    Attributes:
        arm: its id.
        cells: the cells by rising size.
        sizes: (S,) training images.
        records: (S,) its verdicts.
        transfer: (S, n) test scores, of the replicates that are whole at every size.
        scratch: (S, n) those of scratch.
    """

    arm: str
    cells: tuple[str, ...]
    sizes: tuple[float, ...]
    records: tuple[Record, ...]
    transfer: NDArray[np.float64]
    scratch: NDArray[np.float64]


def curves_over_sizes(cells: Sequence[Cell], verdicts: Sequence[Record]) -> list[Curve]:
    """The arms that stand in at least two cells which differ only in size.

    Replicates are kept where both arms finished at every size: subsets are nested by replicate.
    """
    series: dict[str, list[Cell]] = {}
    for cell in cells:
        values = cell.declared.get("values") or {}
        rest = {k: v for k, v in values.items() if k not in SIZES}
        if any(key in values for key in SIZES):
            series.setdefault(str([sorted(rest.items()), cell.budget]), []).append(cell)
    found = []
    by_place = {(record["cell"], record["arm"]): record for record in verdicts}
    for group in series.values():
        ordered = sorted(group, key=lambda cell: float(cell.size()["n_target"] or 0))
        for arm in ordered[0].of_role("transfer") if len(ordered) > 1 else []:
            curve = _curve(arm.id, ordered, by_place)
            if curve is not None:
                found.append(curve)
    return found


def size_records(curves: Sequence[Curve]) -> list[Record]:
    """What every curve comes to, for verdicts.json."""
    return [_record(curve) for curve in curves]


def size_table(records: Sequence[Record]) -> Table | None:
    """Data-equivalent value, crossover and slope of every arm over the sizes."""
    rows = []
    for record in records:
        crossing, slope = record["crossover"], record["slope"]
        unit = unit_of(record["metric"])
        low, high = slope["ci95"] or (None, None)
        p = NOTHING if slope["p"] is None else p_value(slope["p"])
        worth = [f"{e['equivalent']} for {e['size']:.0f}" for e in record["equivalents"]]
        rows.append(
            [
                f"{record['arm']} on {record['target']}",
                "; ".join(worth) or NOTHING,
                _bracket(crossing),
                points(slope["per_doubling"], unit=unit),
                interval(low, high, unit=unit),
                p,
            ]
        )
    head = ["arm", "images that scratch would need", "helps", "gain a doubling", "95 % interval"]
    note = (
        "Images that training from scratch would need to be as good, read off its own rising "
        "curve; ≥ where it never gets so good, < where it is never so bad. Whether transfer helps "
        "is judged at every size with Holm's adjustment over the sizes. The last columns are what "
        "one doubling of the images adds to the gain: above 0, harm shrinks as the target grows "
        "(conditional on this test set)."
    )
    return Table([*head, "p"], rows, words=3, note=note) if rows else None


def _curve(
    arm_id: str, cells: Sequence[Cell], by_place: Mapping[tuple[str, str], Record]
) -> Curve | None:
    places = [cell for cell in cells if (cell.id, arm_id) in by_place]
    sides = [(cell.arm(arm_id), cell.scratch()) for cell in places]
    sizes = [float(cell.size()["n_target"] or 0) for cell in places]
    if len(places) < 2 or sizes[0] <= 0 or sorted(set(sizes)) != sizes:
        return None
    records = tuple(by_place[cell.id, arm_id] for cell in places)
    whole = [arm.done() for pair in sides for arm in pair if arm is not None]
    seeds = sorted(set.intersection(*(set(runs) for runs in whole)))
    metric = records[0]["metric"]
    if not seeds or metric not in SCORED or len(whole) < 2 * len(places):
        return None
    tables = [
        np.array([[_test(pair[side], seed, metric) for seed in seeds] for pair in sides])
        for side in (0, 1)
    ]
    return Curve(arm_id, tuple(c.id for c in places), tuple(sizes), records, *tables)


def _test(arm: Arm | None, seed: int, metric: str) -> float:
    assert arm is not None
    return float(arm.runs[seed]["metrics"]["test"][metric])


def _record(curve: Curve) -> Record:
    first = curve.records[0]
    slope = harm_slope(curve.sizes, curve.transfer - curve.scratch)
    low, high = (bound * math.log(2) for bound in slope.ci95)
    words = _adjusted_words(curve.records)
    return {
        "arm": curve.arm,
        "source": first["source"],
        "strategy": first["strategy"],
        "target": first["target"],
        "metric": first["metric"],
        "cells": list(curve.cells),
        "sizes": list(curve.sizes),
        "n_pairs": curve.transfer.shape[1],
        "words": words,
        "equivalents": [
            _equivalent(entry)
            for entry in data_equivalent(curve.sizes, curve.scratch, curve.transfer)
        ],
        "crossover": _crossing(crossover(curve.sizes, words)),
        "slope": {
            "per_doubling": slope.value * math.log(2),
            "ci95": None if math.isnan(low) else [low, high],
            "p": None if math.isnan(slope.p) else slope.p,
            "reason": slope.reason or None,
        },
    }


def _adjusted_words(records: Sequence[Record]) -> list[str]:
    """The verdicts again, with Holm's adjustment over the sizes on top of that of each family."""
    known = [r["p_sign_holm"] if r["p_sign_holm"] is not None else math.nan for r in records]
    adjusted = holm(np.array(known))
    words = []
    for record, p in zip(records, adjusted, strict=True):
        sign = record["verdict"] in ("positive", "negative")
        level = float(record["look"]["alpha"])
        words.append("inconclusive" if sign and not p < level else str(record["verdict"]))
    return words


def _equivalent(entry: DataEquivalent) -> Record:
    return {
        "size": entry.size,
        "equivalent": _amount(str(entry.equivalent)),
        "transferred": entry.transferred,
        "multiplier": entry.multiplier,
        "low": _amount(str(entry.low)),
        "high": _amount(str(entry.high)),
        "kind": entry.kind,
    }


def _amount(text: str) -> str:
    return text.replace(">=", "≥")


def _crossing(found: Crossover) -> Record:
    return {"last_positive": found.last_positive, "first_without": found.first_without}


def _bracket(crossing: Record) -> str:
    last, first = crossing["last_positive"], crossing["first_without"]
    if last is None:
        return "at no size"
    if first is None:
        return f"up to {last:.0f} images at least"
    return f"up to {last:.0f} images, not shown from {first:.0f}"


def words_over_sizes(records: Sequence[Record]) -> list[str]:
    """One sentence a curve, for the terminal."""
    return [
        f"{record['arm']} on {record['target']}: "
        + ", ".join(
            f"{WORDS[word]} at {size:.0f} images"
            for size, word in zip(record["sizes"], record["words"], strict=True)
        )
        for record in records
    ]
