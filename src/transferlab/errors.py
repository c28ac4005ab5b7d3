"""Errors meant for the person at the keyboard: one line that says what came in and what to do."""

import difflib
from collections.abc import Iterable

INTERRUPTED = "\ntransferlab: interrupted. What is done is kept; the same command goes on."


class UserError(Exception):
    """Something the user can mend was found before the first optimiser step: exit code 2."""


class RunError(Exception):
    """A run failed after it had started training: exit code 1."""


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
