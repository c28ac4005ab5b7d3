"""One display for a whole study: runs done and time left, read from the run directories."""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

INTERVAL = 0.5
"""Seconds between two looks at the run directories."""
SPEED_OVER = 300.0
"""Seconds whose speed the time left is estimated from: arms differ in what a run costs."""


class Display:
    """Show how many of a study's runs have a record.

    On a terminal one line moves; elsewhere a line is printed at the end of each wave.

    Args:
        planned: runs of the whole study, as far as they are known.
    """

    def __init__(self, planned: int) -> None:
        columns = (
            TextColumn("{task.description:<34}"), BarColumn(bar_width=24), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        self._moves = sys.stderr.isatty()
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        self._progress = Progress(
            *columns,
            console=self._console,
            disable=not self._moves,
            speed_estimate_period=SPEED_OVER,
        )
        self._task = self._progress.add_task("", total=planned)
        self._planned, self._before = planned, 0

    def __enter__(self) -> Self:
        """Start the display."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it; what was shown stays."""
        self._progress.stop()

    def expect(self, more: int) -> None:
        """Add runs that the plan did not know of."""
        self._planned += more
        self._progress.update(self._task, total=self._planned)

    @contextmanager
    def wave(self, title: str, directories: Sequence[Path]) -> Iterator[None]:
        """Follow the runs of one wave while the block runs."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(INTERVAL):
                self._show(title, directories)

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            done = self._show(title, directories)
            self._before += len(directories)
            if not self._moves and directories:
                total = f"{self._before}/{self._planned}"
                self._console.print(f"{title}: {done}/{len(directories)} runs, {total} in all")

    def _show(self, title: str, directories: Sequence[Path]) -> int:
        done = sum((directory / "run.json").is_file() for directory in directories)
        self._progress.update(self._task, description=title, completed=self._before + done)
        return done
