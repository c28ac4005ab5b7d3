"""Between a fit and its trackers: each step goes out once, in order, and no failure comes back."""

import sys
from collections.abc import Callable
from typing import Any

from lightning.pytorch.loggers import Logger

from transferlab.trackers.base import NOTHING, TrackedRun, Tracker


class Sender(Logger):
    """Hands a run's rows to a tracker, as one of the Trainer's loggers.

    What is logged at one step is one row; it goes out when a later step comes. Rows up to the
    highest step that the tracker holds are left out, so that a run which goes on may log again
    all that its own file has. A tracker that fails is named in one line and gets nothing more.

    Args:
        name: of the tracker, in its configuration.
        tracker: gets the rows.
        run: that is tracked.
    """

    def __init__(self, name: str, tracker: Tracker, run: TrackedRun) -> None:
        super().__init__()
        self._name, self._tracker, self._run = name, tracker, run
        self._step, self._row = NOTHING, dict[str, float]()
        self._sent = NOTHING
        self._opened = self._works = self._try("when it was opened", self._open)

    @property
    def name(self) -> str:
        """The tracker's name."""
        return self._name

    @property
    def version(self) -> str:
        """The run's id."""
        return self._run.run_id

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Take values of a step; those of a step that is already there are left out."""
        step = self._step if step is None else step
        if step <= self._sent or step < self._step:
            return
        if step > self._step:
            self._flush()
        self._step = step
        self._row |= metrics

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: a tracker has the run's settings from the start."""

    def close(self, summary: dict[str, Any], failed: bool, whole: bool) -> None:
        """Finish the tracker's run.

        Args:
            summary: final scores.
            failed: whether the run has none.
            whole: whether the last row is; one that was cut short stays unsent, and goes out
                from the run's own file when the run goes on.
        """
        if whole:
            self._flush()
        if self._opened:
            self._try("when it was closed", lambda: self._tracker.close(summary, failed))

    def _open(self) -> None:
        self._sent = self._tracker.open(self._run)

    def _flush(self) -> None:
        row, self._row = self._row, {}
        if row and self._works:
            self._works = self._try(
                f"at step {self._step}", lambda: self._tracker.log(row, self._step)
            )
            self._sent = self._step

    def _try(self, when: str, action: Callable[[], None]) -> bool:
        rest = f"run {self._run.run_id} goes on without it, its metrics.jsonl has every step"
        return attempt(self._name, when, action, rest)


def attempt(name: str, when: str, action: Callable[[], None], rest: str) -> bool:
    """Do what a tracker may fail at; say so in one line, and return whether it went well.

    Args:
        name: of the tracker.
        when: it is, for the line.
        action: what may fail.
        rest: what becomes of the rest, for the line.
    """
    try:
        action()
    except Exception as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        reason = f"{type(error).__name__}: {first}"[:300]
        sys.stderr.write(f"transferlab: tracker {name} failed {when} ({reason}); {rest}.\n")
        return False
    return True
