"""What a tracker is told about a run and about a study, and what it does with it."""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from transferlab.errors import UserError

NOTHING = -1
"""The highest step that a tracker holds which holds none."""


@dataclass(frozen=True)
class TrackedRun:
    """One run as trackers see it.

    Attributes:
        run_id: the tracker's id of the run too, so that a run started again goes on there.
        name: for people.
        group: the study.
        purpose: ``single``, ``source``, ``tune`` or ``replicate``.
        directory: of the run.
        settings: flat columns.
    """

    run_id: str
    name: str
    group: str
    purpose: str
    directory: Path
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrackedStudy:
    """What a study came to, as trackers see it: nothing in it names an image.

    Attributes:
        run_id: the tracker's id of the study's own run.
        name: of the study.
        directory: of the study; its runs lie in ``runs/``.
        summary: the verdicts in one sentence.
        verdicts: a row a verdict.
        gains: a row a run of a cell: ``run_id`` and ``gain`` among the columns.
        page: the report, or None where it can't be sent.
    """

    run_id: str
    name: str
    directory: Path
    summary: str
    verdicts: pd.DataFrame
    gains: pd.DataFrame
    page: Path | None

    def gain_by_run(self) -> dict[str, float]:
        """Return each run's gain; a run that stands in several cells has that of the first."""
        rows = self.gains.drop_duplicates("run_id")
        return dict(zip(rows["run_id"], rows["gain"].astype(float), strict=True))


class Tracker(Protocol):
    """Takes the numbers of one run after the other, and what a study came to.

    A method that raises costs a line on stderr and never the run: callers see to it.
    """

    def open(self, run: TrackedRun) -> int:
        """Start or continue a run; return the highest step that is there, ``NOTHING`` for none.

        What was handed over before a process was killed may not have arrived: the answer must be
        what the tracker holds, for all above is sent again.
        """
        ...

    def log(self, values: dict[str, float], step: int) -> None:
        """Take all values of an optimiser step; steps come once each, in rising order."""
        ...

    def close(self, summary: dict[str, Any], failed: bool) -> None:
        """Write the final scores and finish the run, whatever became of it."""
        ...

    def publish(self, study: TrackedStudy) -> None:
        """Give the study a run of its own with its tables and page, and its runs their gains."""
        ...


def require_package(name: str, tracker: str) -> None:
    """Raise a UserError unless a tracker's package is installed."""
    if importlib.util.find_spec(name) is None:
        raise UserError(f"tracker={tracker} needs {name}: pip install 'transferlab[trackers]'.")
