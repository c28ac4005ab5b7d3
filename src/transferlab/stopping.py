"""A run that is asked to stop: the signal handler only takes note, the step loop acts on it."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

NOTICE = signal.SIGUSR2
"""What a scheduler sends some time before it ends a job."""
STOPPED = 75
"""Exit code of a process that stopped in order and can go on later (EX_TEMPFAIL)."""
AGAIN_SECONDS = 0.05
"""After which an interrupt that was dropped comes again: the finaliser has ended by then."""
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


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """Raise Ctrl-C anew where it came while a finaliser ran: Python drops what is raised there."""
    before = sys.unraisablehook

    def again(dropped: "sys.UnraisableHookArgs") -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            before(dropped)
            return
        # A signal ends a wait as well, which `_thread.interrupt_main` does not.
        main = threading.main_thread().ident
        timer = threading.Timer(AGAIN_SECONDS, signal.pthread_kill, (main, signal.SIGINT))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before
