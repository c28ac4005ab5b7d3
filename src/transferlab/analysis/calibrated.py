"""How far the arms' confidence can be believed, before and after temperature scaling."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from transferlab.analysis.arms import Arm, Cell
from transferlab.analysis.facts import Table
from transferlab.analysis.gains import arm_name
from transferlab.analysis.load import Answers, read_items
from transferlab.stats.calibration import expected_calibration_error, fit_temperature, scaled
from transferlab.stats.metrics import item_log_loss

Figures = tuple[float, float, float, float, float]


def calibration(cell: Cell, directory: Path) -> Table | None:
    """Calibration error and log-loss on test of every arm; the temperature is of validation.

    Args:
        cell: whose arms these are.
        directory: of the study.

    Returns:
        One row an arm, means over its runs; None where no run kept the scores of all classes.
    """
    rows = []
    for arm in cell.arms:
        figures = _figures(arm, directory)
        if figures:
            means = [math.fsum(column) / len(column) for column in zip(*figures, strict=True)]
            ece, ece_after, nll, nll_after, temperature = means
            rows.append([arm_name(arm), f"{100 * ece:.1f}", f"{nll:.3f}", f"{temperature:.2f}"])
            rows[-1] += [f"{100 * ece_after:.1f}", f"{nll_after:.3f}", str(len(figures))]
    head = ["arm", "calibration error", "log-loss", "temperature", "error, scaled"]
    note = (
        "Expected calibration error over 15 bins, in points, and log-loss in nats, on test. The "
        "temperature is fitted on each run's validation images and changes no prediction. A "
        "perfectly calibrated model shows about 3 points at 2,000 images, and more at fewer."
    )
    return Table([*head, "log-loss, scaled", "runs"], rows, note=note) if rows else None


def _figures(arm: Arm, directory: Path) -> list[Figures]:
    found = []
    for run_id in (str(run["run_id"]) for run in arm.done().values()):
        sides = [_answers(directory, run_id, split) for split in ("validation", "test")]
        if all(side is not None and side.logits is not None for side in sides):
            found.append(_of_run(*[side for side in sides if side is not None]))
    return found


def _answers(directory: Path, run_id: str, split: str) -> Answers | None:
    try:
        return read_items(directory, run_id, split=split, logits=True)
    except ValueError:
        return None  # said where its test answers are read


def _of_run(validation: Answers, test: Answers) -> Figures:
    fitted = fit_temperature(_logits(validation), validation.labels.astype(np.int64))
    labels = test.labels.astype(np.int64)
    tables = [log_softmax(scaled(_logits(test), T), axis=1) for T in (1.0, fitted.value)]
    ece, ece_after = (expected_calibration_error(table, labels) for table in tables)
    nll, nll_after = (float(item_log_loss(table, labels).mean()) for table in tables)
    return ece, ece_after, nll, nll_after, fitted.value


def _logits(answers: Answers) -> NDArray[np.float64]:
    assert answers.logits is not None
    return answers.logits.astype(np.float64)
