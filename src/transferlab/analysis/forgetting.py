"""The report's tables of what arms lost of their source, and how far their features moved."""

import math
from collections.abc import Callable, Sequence

from transferlab.analysis.arms import Arm, Cell
from transferlab.analysis.facts import Table
from transferlab.analysis.formats import NOTHING, interval, percent, points
from transferlab.analysis.gains import arm_name
from transferlab.records import Record

FEW_ITEMS_PER_DIMENSION = 10
"""Fewer items than so many times the features bias plain CKA upward: read the unbiased one."""


def forgetting(cell: Cell) -> Table:
    """What the replicates of every arm lost of their source: mean, and range over replicates.

    Args:
        cell: the arms and their runs; runs without the field ``forgetting`` do not count.

    Returns:
        one row an arm that measured it; without rows where none did.
    """
    rows = []
    for arm in cell.arms:
        found = _measured(arm)
        if not found:
            continue
        figures = [percent(_mean([f["source_accuracy"][side] for f in found]))
                   for side in ("before", "after")]  # fmt: skip
        for name in ("F_head", "F_probe"):
            values = [float(f[name]) for f in found]
            figures += [points(_mean(values)), _range(values, interval)]
        rows.append([arm_name(arm), str(found[0]["source"]), *figures, str(len(found))])
    head = ["arm", "source", "source accuracy before", "after", "forgotten, old head", "range"]
    note = (
        "On the source's validation images, in percent and points; above 0 is lost. With the "
        "source run's own head on the backbone as the run left it, and with a linear probe fitted "
        "anew on either side: what only the first one shows can still be read from the features."
    )
    return Table([*head, "forgotten, new probe", "range", "runs"], rows, words=2, note=note)


def drift(cell: Cell) -> Table:
    """How alike the features of every arm are before and after: CKA by layer group.

    Args:
        cell: the arms and their runs; runs without the field ``forgetting`` do not count.

    Returns:
        one row an arm and layer group, stem first, with mean and range over replicates of plain
        and unbiased linear CKA.
    """
    rows, few = [], False
    for arm in cell.arms:
        found = _measured(arm)
        for place, group in enumerate(found[0]["drift"] if found else []):
            entries = [f["drift"][place] for f in found if len(f["drift"]) > place]
            items, dims = int(group["n"]), int(group["dims"])
            few |= items < FEW_ITEMS_PER_DIMENSION * dims
            figures = []
            for name in ("cka", "unbiased_cka"):
                values = [float(e[name]) for e in entries if e[name] is not None]
                figures += [_three(_mean(values)), _range(values, _span)]
            rows.append([arm_name(arm), str(group["group"]), *figures, str(items), str(dims)])
    note = "On the target's validation images; 1 is unchanged, but for a rotation and a scale."
    if few:
        note += (
            f" Where items are fewer than {FEW_ITEMS_PER_DIMENSION} times the features, plain CKA "
            "is biased upward: read the unbiased one."
        )
    head = ["arm", "layer group", "linear CKA", "range", "unbiased CKA", "range", "items"]
    return Table([*head, "features"], rows, words=2, note=note)


def _measured(arm: Arm) -> list[Record]:
    """The field ``forgetting`` of the arm's finished replicates, in the order of their seeds."""
    found = [run.get("forgetting") for _, run in sorted(arm.done().items())]
    return [record for record in found if record]


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _range(values: Sequence[float], written: Callable[[float, float], str]) -> str:
    return written(min(values), max(values)) if len(values) > 1 else NOTHING


def _span(low: float, high: float) -> str:
    return f"{_three(low)} to {_three(high)}"


def _three(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"
