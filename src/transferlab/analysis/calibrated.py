"""How far the arms' confidence can be believed, before and after temperature scaling."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transferlab.analysis.arms import Arm, Cell
from transferlab.analysis.facts import Table
from transferlab.analysis.gains import arm_name
from transferlab.analysis.load import Answers, read_items
from transferlab.records import Record
from transferlab.stats.calibration import held_out_calibration

Figures = dict[str, float]


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
            means = {
                name: math.fsum(one[name] for one in figures) / len(figures) for name in figures[0]
            }
            row = [arm_name(arm), f"{100 * means['ece']:.1f}", f"{means['log_loss']:.3f}"]
            row += [f"{means['temperature']:.2f}", f"{100 * means['ece_scaled']:.1f}"]
            rows.append([*row, f"{means['log_loss_scaled']:.3f}", str(len(figures))])
    head = ["arm", "calibration error", "log-loss", "temperature", "error, scaled"]
    note = (
        "Expected calibration error over 15 bins, in points, and log-loss in nats, on test. The "
        "temperature is fitted on each run's validation images and changes no prediction. A "
        "perfectly calibrated model shows about 3 points at 2,000 images, and more at fewer."
    )
    return Table([*head, "log-loss, scaled", "runs"], rows, note=note) if rows else None


def _figures(arm: Arm, directory: Path) -> list[Figures]:
    found = [_of_run(run, directory) for run in arm.done().values()]
    return [one for one in found if one is not None]


def _of_run(run: Record, directory: Path) -> Figures | None:
    """Return what the run's record says; earlier records say nothing, its answers do."""
    if "calibration" in run:
        figures: Figures | None = run["calibration"]
        return figures
    run_id = str(run["run_id"])
    try:
        sides = [
            read_items(directory, run_id, split=split, logits=True)
            for split in ("validation", "test")
        ]
    except ValueError:
        return None  # said where its test answers are read
    if any(side.logits is None for side in sides):
        return None
    validation, test = ((_logits(side), side.labels.astype(np.int64)) for side in sides)
    return held_out_calibration(validation, test)


def _logits(answers: Answers) -> NDArray[np.float64]:
    assert answers.logits is not None
    return answers.logits.astype(np.float64)
