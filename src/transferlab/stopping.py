"""A run that is asked to stop: the signal handler only takes note, the step loop acts on it."""

import os
import signal
from dataclasses import dataclass

NOTICE = signal.SIGUSR2
"""What a scheduler sends some time before it ends a job."""
STOPPED = 75
"""Exit code of a process that stopped in order and can go on later (EX_TEMPFAIL)."""
STOPPABLE = "TRANSFERLAB_STOPPABLE"
"""Set in the environment of processes that may be asked."""


class Stopped(BaseException):
    """A run stopped between two optimiser steps because it was asked to; its state is saved.

    No ``Exception``, so that whoever records failures lets it pass: nothing failed.
    """


@dataclass
class Stopping:
    """Whether this process may be asked to stop, and whether it was.

    Attributes:
        possible: somebody may ask; only then do ranks talk about it.
        asked: the next optimiser step must not begin.
    """

    possible: bool = False
    asked: bool = False

    def listen(self) -> None:
        """Take note of the scheduler's signal from now on."""
        self.possible = True
        os.environ[STOPPABLE] = "1"
        signal.signal(NOTICE, self._take_note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [NOTICE])

    def _take_note(self, number: int, frame: object) -> None:
        del number, frame
        self.asked = True


stopping = Stopping(possible=STOPPABLE in os.environ)
"""This process's own."""
