"""Reads what a study left on disk: its declared family, its runs, and their test predictions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from transferlab.errors import UserError
from transferlab.records import FORMAT, Record, read_json

PREDICTED = "predicted.json"
"""The file that holds what was said of a study's sources before its arms were trained."""
RUN_KEYS = ("run_id", "status", "purpose", "source", "target", "strategy", "seed", "metrics")
STUDY_KEYS = ("name", "cells", "margin", "alpha", "seeds")
COLUMNS = ("item_id", "split", "label", "prediction", "log_prob")
FACT = "meta."
"""What the names of columns begin with that say something about an image."""
ARM_KEYS = ("id", "role", "source", "strategy", "runs")


@dataclass(frozen=True)
class Study:
    """A directory's records.

    Attributes:
        directory: where they lie.
        declared: False for a folder of single runs, which has no family and so no verdicts.
        header: study.json, or a stand-in that only names the folder.
        runs: every readable run.json by run id, in the order of the ids.
        skipped: one sentence for each record that could not be read.
        unfinished: run folders that hold no run.json yet.
        predicted: what was said of the sources before training; empty where nothing was.
    """

    directory: Path
    declared: bool
    header: Record
    runs: dict[str, Record]
    skipped: tuple[str, ...]
    unfinished: tuple[str, ...]
    predicted: tuple[Record, ...] = ()


@dataclass(frozen=True)
class Answers:
    """One run's answers on the test split, in the order of the item ids.

    Attributes:
        ids: (M,) the items' names.
        labels: (M,) the true classes.
        correct: (M,) whether the prediction equals the label.
        log_prob: (M,) natural log of the probability given to the true class.
        groups: (M,) the group an item belongs to, None where items stand alone.
        logits: (M, C) scores of all classes; None where they weren't asked for or kept.
        facts: (M,) further columns by name: what a report tells groups of images apart by.
    """

    ids: NDArray[Any]
    labels: NDArray[Any]
    correct: NDArray[np.bool_]
    log_prob: NDArray[np.float64]
    groups: NDArray[Any] | None
    logits: NDArray[np.float32] | None = None
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def load_study(directory: Path) -> Study:
    """Read the records under ``directory``; the time is linear in their number.

    Raises:
        UserError: the folder is missing, empty or no study, or its study.json is damaged.
    """
    _require_folder(directory)
    header = _header(directory)
    runs, skipped, unfinished = _runs(directory)
    if header is None and not runs:
        raise UserError(_foreign(directory, skipped))
    return Study(
        directory,
        header is not None,
        header or {"name": directory.resolve().name, "cells": [], "seeds": []},
        runs,
        tuple(skipped),
        tuple(unfinished),
        _predicted(directory),
    )


def read_items(
    directory: Path,
    run_id: str,
    *,
    split: str = "test",
    logits: bool = False,
    file: str = "predictions.parquet",
) -> Answers:
    """Read one split's rows of a run's predictions, sorted by item.

    Args:
        directory: of the study.
        run_id: of the run.
        split: ``test`` or ``validation``.
        logits: whether the scores of all classes are wanted, which are most of the file.
        file: of the run's folder; further test sets have files of their own.

    Raises:
        ValueError: the file is missing, damaged, or holds no rows of that split.
    """
    path = directory / "runs" / run_id / file
    try:
        table = _table(path, path.stat().st_mtime_ns, logits)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} could not be read ({_brief(error)}).") from error
    order = _order(table["item_id"], table["split"], split)
    if len(order.rows) == 0:
        raise ValueError(f"{path} holds no rows of the {split} split.")
    names = [name for name in table.column_names if name not in ("item_id", "split")]
    at = {name: table[name].to_numpy()[order.rows] for name in names}
    return Answers(
        ids=order.items,
        labels=at["label"],
        correct=np.asarray(at["label"] == at["prediction"], dtype=np.bool_),
        log_prob=np.asarray(at["log_prob"], dtype=np.float64),
        groups=_groups(order.items, at.get("group")),
        logits=np.stack(at["logits"]) if "logits" in at else None,
        facts={
            name.removeprefix(FACT): values.astype(str)
            for name, values in at.items()
            if name.startswith(FACT)
        },
    )


@dataclass(frozen=True)
class _Order:
    """Where the rows of a split lie, by item.

    Attributes:
        columns: names of items and of splits, of the whole file.
        rows: (M,) of that split, sorted by item.
        items: (M,) their names.
    """

    columns: tuple[pa.ChunkedArray, pa.ChunkedArray]
    rows: NDArray[np.int64]
    items: NDArray[Any]


_orders: dict[str, _Order] = {}
"""Of the file that was read last, by split: most runs of a study have the same items."""


def _order(ids: pa.ChunkedArray, splits: pa.ChunkedArray, split: str) -> _Order:
    known = _orders.get(split)
    if known and all(a.equals(b) for a, b in zip(known.columns, (ids, splits), strict=True)):
        return known
    rows = np.flatnonzero(splits.to_numpy() == split)
    items = ids.to_numpy()[rows]
    order = np.argsort(items, kind="stable")
    _orders[split] = _Order((ids, splits), rows[order], items[order])
    return _orders[split]


@lru_cache(maxsize=2)
def _table(path: Path, changed: int, logits: bool) -> pa.Table:
    """Read a file once for its splits, which are asked for one after the other."""
    del changed
    with pa.memory_map(str(path)) as stream, parquet.ParquetFile(stream, pre_buffer=False) as file:
        there = file.schema_arrow.names
        missing = [name for name in COLUMNS if name not in there]
        if missing:
            raise KeyError(f"it lacks the column {missing[0]}")
        also = [name for name in ("group", *(["logits"] if logits else [])) if name in there]
        facts = [name for name in there if name.startswith(FACT)]
        # of so small files threads would cost more than they save
        return file.read([*COLUMNS, *also, *facts], use_threads=False)


def _groups(ids: NDArray[Any], groups: NDArray[Any] | None) -> NDArray[Any] | None:
    """Group names as text; an item without one stands alone."""
    if groups is None:
        return None
    pairs = zip(ids, groups, strict=True)
    return np.array([f"item {i}" if g is None or g != g else f"group {g}" for i, g in pairs])


def _require_folder(directory: Path) -> None:
    if not directory.exists():
        raise UserError(
            f"There is no folder {directory}. Give the folder that a study wrote, such as "
            "outputs/digits; `transferlab run experiment=digits` writes that one."
        )
    if not directory.is_dir():
        raise UserError(f"{directory} is a file. Give the folder of the study that it lies in.")


def _foreign(directory: Path, skipped: list[str]) -> str:
    if (directory / "run.json").exists():
        return (
            f"{directory} is the folder of one run. Give the folder two levels up, which holds "
            f"`runs/`: {directory.resolve().parent.parent}."
        )
    if skipped:
        return f"None of the {len(skipped)} records under {directory} can be read: {skipped[0]}"
    found = "is empty" if not any(directory.iterdir()) else "holds neither study.json nor a run"
    return (
        f"{directory} {found}. Give the folder that a study wrote (it holds study.json and runs/), "
        "or run one first: `transferlab run experiment=digits`."
    )


def _header(directory: Path) -> Record | None:
    path = directory / "study.json"
    if not path.exists():
        return None
    remedy = "Run the study's command again: finished runs are skipped and it is written anew."
    try:
        header = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({_brief(error)}). {remedy}") from error
    missing = _missing(header, STUDY_KEYS)
    if not missing:
        arms = [arm for cell in header["cells"] for arm in cell.get("arms", [])]
        missing = sorted({key for arm in arms for key in _missing(arm, ARM_KEYS)})
    if missing:
        raise UserError(f"{path} is no study record: it lacks {', '.join(missing)}. {remedy}")
    if header.get("format", FORMAT) > FORMAT:
        raise UserError(
            f"{path} has format {header['format']}, this version of transferlab reads up to "
            f"{FORMAT}. Install the version that wrote it."
        )
    return dict(header)


def _predicted(directory: Path) -> tuple[Record, ...]:
    path = directory / PREDICTED
    try:
        return tuple(read_json(path)["predictions"]) if path.exists() else ()
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} can't be read ({_brief(error)}). Remove it: what was predicted is lost, the "
            "verdicts are not."
        ) from error


def _runs(directory: Path) -> tuple[dict[str, Record], list[str], list[str]]:
    runs: dict[str, Record] = {}
    skipped: list[str] = []
    unfinished: list[str] = []
    root = directory / "runs"
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    for folder in folders:
        path = folder / "run.json"
        if not path.exists():
            unfinished.append(folder.name)
            continue
        try:
            record = read_json(path)
            problem = _problem(record)
        except OSError as error:
            problem = f"it can't be read ({error.strerror})"
        except ValueError:
            problem = "it is damaged, no whole JSON record"
        if problem:
            skipped.append(f"runs/{folder.name}/run.json was left out: {problem}.")
        else:
            runs[str(record["run_id"])] = {**record, "metrics": record["metrics"] or {}}
    return runs, skipped, unfinished


def _problem(record: Any) -> str | None:
    missing = _missing(record, RUN_KEYS)
    if missing:
        return f"it lacks {', '.join(missing)}"
    if record.get("format", FORMAT) > FORMAT:
        return f"its format is {record['format']}, this version reads up to {FORMAT}"
    return None


def _missing(record: Any, keys: tuple[str, ...]) -> list[str]:
    if not isinstance(record, dict):
        return list(keys)
    return [key for key in keys if key not in record]


def _brief(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__
