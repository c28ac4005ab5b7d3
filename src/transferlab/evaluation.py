"""Scores and predictions of a fitted model: everything later is recomputed from these."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax

from transferlab.building import build
from transferlab.collectives import from_all
from transferlab.datasets.base import Index
from transferlab.datasets.store import ImageStore
from transferlab.errors import UserError, nearest
from transferlab.records import replacing
from transferlab.stats.auroc import auroc
from transferlab.stats.calibration import held_out_calibration
from transferlab.stats.metrics import accuracy, brier, log_loss, macro_recall

Logits = NDArray[np.float32]
Positions = NDArray[np.int64]
IMBALANCE = 3.0
"""The score is macro recall where the largest class is more than so many times the smallest."""
LOGITS_UP_TO = 100
"""Classes up to which predictions keep their logits."""


def choose_metric(name: str, labels: NDArray[np.int64], classes: int) -> str:
    """Resolve ``auto``: accuracy, or macro recall for classes of very different sizes."""
    if name != "auto":
        return name
    return "macro_recall" if imbalance(labels, classes) > IMBALANCE else "accuracy"


def imbalance(labels: NDArray[np.int64], classes: int) -> float:
    """Return how many times the smallest class the largest one is."""
    counts = np.bincount(labels, minlength=classes)
    return float(counts.max() / max(counts.min(), 1))


def scores(logits: Logits, labels: NDArray[np.int64]) -> dict[str, float]:
    """Return accuracy and macro recall in [0, 1] and log-loss in nats of (N, C) logits."""
    prediction = logits.argmax(axis=1)
    log_prob = log_softmax(logits.astype(np.float64), axis=1)
    return {
        "accuracy": accuracy(prediction, labels),
        "macro_recall": macro_recall(prediction, labels),
        "log_loss": log_loss(log_prob, labels),
    }


def ranking_scores(logits: Logits, labels: NDArray[np.int64]) -> dict[str, float]:
    """Return Brier's score, and up to 100 classes the AUROC of those present, of (N, C) logits."""
    log_prob = log_softmax(logits.astype(np.float64), axis=1)
    found = {"brier": brier(log_prob, labels)}
    present, codes = np.unique(labels, return_inverse=True)
    if len(present) > 1 and logits.shape[1] <= LOGITS_UP_TO:
        table = np.exp(log_prob)[:, present]
        found["auroc"] = float(auroc((table[:, 1] if len(present) == 2 else table)[None], codes)[0])
    return found


def further_scores(nodes: Any, logits: Logits, labels: NDArray[np.int64]) -> dict[str, float]:
    """Return the torchmetrics that ``metric.others`` names, from (N, C) logits."""
    found = {}
    for name, node in (nodes or {}).items():
        metric = build(node, num_classes=logits.shape[1])
        value = metric(torch.from_numpy(logits), torch.from_numpy(labels))
        found[str(name)] = float(value)
    return found


def gathered(outputs: Sequence[tuple[Logits, Positions]]) -> list[tuple[Logits, Positions]]:
    """Return the batches of outputs of all ranks, on every rank; shares may be unequal.

    All ranks must call it. With one process it returns what came in. :func:`gather` then puts
    the items in order and counts them: ``gather(gathered(outputs), positions)``.
    """
    return [batch for share in from_all(list(outputs)) for batch in share]


def gather(outputs: Sequence[tuple[Logits, Positions]], positions: Positions) -> Logits:
    """Put batches of outputs into the order of ``positions``, each item once.

    Raises:
        RuntimeError: an item is missing; duplicates (padding) are dropped.
    """
    if not outputs:
        raise RuntimeError(f"evaluation lost {len(positions)} of {len(positions)} items")
    found = np.concatenate([rows for _, rows in outputs])
    logits = np.concatenate([values for values, _ in outputs])
    order = {int(position): row for row, position in enumerate(found)}
    missing = [int(p) for p in positions if int(p) not in order]
    if missing:
        raise RuntimeError(f"evaluation lost {len(missing)} of {len(positions)} items")
    return logits[[order[int(p)] for p in positions]]


def sample(positions: Positions, at_most: int) -> Positions:
    """Return at most so many of the positions, evenly spread over them.

    Positions are sorted and files often by class: the first ones would be of the first classes.
    """
    if len(positions) <= at_most:
        return positions
    return positions[np.linspace(0, len(positions) - 1, at_most).astype(np.int64)]


def report_columns(index: Index, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the metadata that predictions are to carry, N values a column.

    Raises:
        UserError: the data have no such column.
    """
    for name in names:
        if name not in index.metadata:
            has = nearest(name, index.metadata) if index.metadata else "it brings none"
            raise UserError(
                f"`target.report_by` names {name!r}, which is no column of these data ({has}). "
                "Tables (target=table) and Parquet files bring columns; leave out the others."
            )
    return {name: index.metadata[name] for name in names}


def calibration(
    parts: Mapping[str, tuple[Positions, Logits]], labels: Positions
) -> dict[str, float] | None:
    """Return how far a run's confidence can be believed on test, before and after scaling.

    Args:
        parts: ``validation`` and ``test`` -> (positions, (n, C) logits).
        labels: (N,) of all images.

    Returns:
        As :func:`held_out_calibration`; None of more than 100 classes, or where a logit is not
        finite.
    """
    sides = [
        (logits.astype(np.float64), labels[positions])
        for positions, logits in (parts["validation"], parts["test"])
    ]
    if any(x.shape[1] > LOGITS_UP_TO or not np.isfinite(x).all() for x, _ in sides):
        return None
    return held_out_calibration(*sides)


def replace_columns(path: Path, store: ImageStore, columns: Mapping[str, Sequence[str]]) -> None:
    """Write predictions anew with these metadata columns in place of those that they carry."""
    table = pd.read_parquet(path)
    table = table.drop(columns=[name for name in table.columns if name.startswith("meta.")])
    places = {name: position for position, name in enumerate(store.ids)}
    rows = [places[name] for name in table["item_id"]]
    for name, values in columns.items():
        table[f"meta.{name}"] = [values[row] for row in rows]
    if "logits" in table.columns:
        table["logits"] = table.pop("logits")  # the last column
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False)


def write_predictions(
    path: Path,
    store: ImageStore,
    parts: dict[str, tuple[Positions, Logits]],
    groups: Positions | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
    *,
    with_logits: bool = True,
) -> None:
    """Write ``item_id, split, label, prediction, log_prob, logits`` of validation and test.

    ``log_prob`` is that of the true class. Where images belong to groups, a column ``group``
    says to which: verdicts then count groups, not images. Metadata becomes columns ``meta.NAME``.

    Args:
        path: of the Parquet file.
        store: names and labels.
        parts: split -> (positions, (n, C) logits).
        groups: (N,) group of every image, or None.
        columns: metadata by name, N values each.
        with_logits: whether to keep the scores of all classes, which are most of the file.
    """
    frames = []
    for split, (positions, logits) in parts.items():
        labels = store.labels[positions]
        log_prob = log_softmax(logits.astype(np.float64), axis=1)
        frame = pd.DataFrame(
            {
                "item_id": [store.ids[p] for p in positions],
                "split": split,
                "label": labels,
                "prediction": logits.argmax(axis=1),
                "log_prob": log_prob[np.arange(len(labels)), labels],
            }
        )
        if groups is not None:
            frame["group"] = groups[positions]
        for name, values in (columns or {}).items():
            frame[f"meta.{name}"] = [values[p] for p in positions]
        if with_logits and logits.shape[1] <= LOGITS_UP_TO:
            frame["logits"] = list(logits)
        frames.append(frame)
    with replacing(path) as temporary:
        pd.concat(frames, ignore_index=True).to_parquet(temporary, index=False)
