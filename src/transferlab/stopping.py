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
"""After which an interrupt that was dropped or swallowed comes again."""
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
    """Raise Ctrl-C until it is heard.

    What is raised in a finaliser Python drops, and a library may swallow it elsewhere: the command
    would go on, and nobody would know. A clock so looks again, as long as this lasts, whether the
    interrupt is on its way out; it is where code that cleans up runs for it. Where somebody else
    decides what an interrupt means, or ignores it, all stays as it is.
    """
    before, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    alarm = signal.getsignal(signal.SIGALRM)
    alone = threading.current_thread() is not threading.main_thread()
    if before is not signal.default_int_handler or alone:
        yield
        return

    def dropped(what: "sys.UnraisableHookArgs") -> None:
        if not issubclass(what.exc_type, KeyboardInterrupt):  # of which no word: it comes again
            hook(what)

    signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = dropped
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGALRM) is _insist:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm)
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = hook


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    signal.signal(signal.SIGALRM, _insist)
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS, AGAIN_SECONDS)
    raise KeyboardInterrupt


def _insist(number: int, frame: object) -> None:
    del number, frame
    error = sys.exc_info()[1]  # what the code that is interrupted here is at work on
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    if error is None:
        raise KeyboardInterrupt
