"""What a tracker is told about a run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch.loggers import Logger


@dataclass(frozen=True)
class TrackedRun:
    """One run as trackers see it.

    Attributes:
        run_id: the tracker's id of the run too, so that a run started again goes on there.
        name: for people.
        group: the study.
        directory: of the run.
        settings: flat columns.
    """

    run_id: str
    name: str
    group: str
    directory: Path
    settings: dict[str, Any] = field(default_factory=dict)


class Tracker(Protocol):
    """A tracker: makes a logger for a run and closes it, whatever became of the run."""

    def open(self, run: TrackedRun) -> Logger:
        """Return a Lightning logger for a run."""
        ...

    def close(self, logger: Logger, summary: dict[str, Any], failed: bool) -> None:
        """Write the final scores and finish the run."""
        ...
