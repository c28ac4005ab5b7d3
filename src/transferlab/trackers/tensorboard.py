"""TensorBoard event files under the run's own directory."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from transferlab.trackers.base import NOTHING, TrackedRun, TrackedStudy, require_package

FOLDER = "tensorboard"
FINAL = "final/"
GAIN = f"{FINAL}gain"
COLUMNS = "_hparams_/session_start_info"
"""Tag under which TensorBoard keeps a run's flat columns."""


class TensorBoard:
    """Write event files to ``runs/<id>/tensorboard``; look with ``tensorboard --logdir``."""

    def __init__(self) -> None:
        require_package("tensorboard", "tensorboard")
        self._writer: Any = None
        self._known: set[str] = set()

    def open(self, run: TrackedRun) -> int:
        """Start event files for a run, beside those of processes that were killed."""
        folder = run.directory / FOLDER
        before = _read(folder)
        self._known = set(before.Tags()["scalars"])
        self._writer = _writer(folder)
        if COLUMNS not in before.summary_metadata:
            self._note_columns(run)
        curves = [tag for tag in self._known if not tag.startswith(FINAL)]
        return max((e.step for tag in curves for e in before.Scalars(tag)), default=NOTHING)

    def log(self, values: dict[str, float], step: int) -> None:
        """Write a step."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self, summary: dict[str, Any], failed: bool) -> None:  # noqa: ARG002 - a tracker's
        """Write the final scores, unless they are there, and close the files."""
        for key, value in summary.items():
            if isinstance(value, int | float) and FINAL + key not in self._known:
                self._writer.add_scalar(FINAL + key, float(value), 0)
        self._writer.close()

    def publish(self, study: TrackedStudy) -> None:
        """Write the tables as text beside the study's report, and each run's gain to its files."""
        writer = _writer(study.directory / FOLDER)
        writer.add_text("summary", study.summary)
        writer.add_text("verdicts", _markdown(study.verdicts))
        writer.add_text("gains", _markdown(study.gains))
        writer.close()
        for run_id, gain in study.gain_by_run().items():
            folder = study.directory / "runs" / run_id / FOLDER
            if folder.is_dir() and GAIN not in _read(folder).Tags()["scalars"]:
                writer = _writer(folder)
                writer.add_scalar(GAIN, gain, 0)
                writer.close()

    def _note_columns(self, run: TrackedRun) -> None:
        """Write the flat columns where TensorBoard's table of runs looks for them."""
        from torch.utils.tensorboard import summary

        columns = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in run.settings.items()
        }
        shown = [f"{FINAL}{split}_{run.settings['metric']}" for split in ("validation", "test")]
        made: Any = summary.hparams  # torch gives it no types
        for part in made(columns, dict.fromkeys([*shown, GAIN], 0.0)):
            self._writer.file_writer.add_summary(part)
        self._writer.flush()


def _writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))


def _read(folder: Path) -> Any:
    """Return all events of a folder; what a killed process cut short ends its file."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    if any(folder.glob("events.*")):
        events.Reload()
    return events


def _markdown(table: pd.DataFrame) -> str:
    def line(cells: Iterable[Any]) -> str:
        return "| " + " | ".join("" if pd.isna(c) else str(c).replace("|", "\\|") for c in cells)

    rows = [line(table.columns), line("---" for _ in table.columns)]
    return "\n".join([*rows, *(line(row) for row in table.itertuples(index=False))])
