"""Errors meant for the person at the keyboard: one line that says what came in and what to do."""

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path

INTERRUPTED = "\ntransferlab: interrupted. What is done is kept; the same command goes on."


class UserError(Exception):
    """Something the user can mend was found before the first optimiser step: exit code 2."""


class RunError(Exception):
    """A run failed after it had started training: exit code 1."""


class FullDiskError(RunError, OSError):
    """There is no room for a file; what was done before stays, and nothing half-written does.

    Args:
        folder: on the disk that is full.
        name: of the file.
        size: bytes of it that were written before the room ended.
    """

    def __init__(self, folder: Path, name: str, size: int) -> None:
        self.folder, self.name, self.size = folder, name, size
        super().__init__(errno.ENOSPC, "No space left on device")

    def __str__(self) -> str:
        """Return the line for the user."""
        more = f"more than {self.size / 1e6:.1f} MB" if self.size else "more room"
        return (
            f"the disk of {self.folder} is full: {self.name} needs {more} there. Make room, or set "
            "output_dir and TRANSFERLAB_CACHE to another disk; the same command then goes on."
        )

    def __reduce__(self) -> tuple[type, tuple[Path, str, int]]:
        """Let a launcher's worker hand it to its driver."""
        return type(self), (self.folder, self.name, self.size)


def nearest(value: object, valid: Iterable[str], count: int = 3) -> str:
    """Name the valid values closest to what came in, for use inside an error message.

    Args:
        value: what the user wrote.
        valid: every accepted spelling.
        count: how many candidates to name at the most.

    Returns:
        ``"nearest: a, b"``, or ``"valid: a, b, c, ..."`` when nothing is close.
    """
    options = sorted(valid)
    close = difflib.get_close_matches(str(value), options, n=count, cutoff=0.5)
    if close:
        return "nearest: " + ", ".join(close)
    shown = ", ".join(options[:12])
    return f"valid: {shown}" + (", ..." if len(options) > 12 else "")
