"""Leases: who is at work on something, on whichever machine, and whether they are still there.

A lock of the operating system falls with its process, but not everywhere across machines, and
says nothing of who is at work. A lease is a file beside what it guards. Its holder moves a counter
in it; whoever waits watches the counter by the own monotonic clock, so that clocks that differ
or jump harm nothing. On the holder's own machine a dead process is seen at once.

Generations make taking over safe: the next one is created exclusively, and only one can. A holder
that was away too long (a suspended machine) finds a later generation and stops.
"""

import ctypes
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transferlab.errors import RunError
from transferlab.processes import has_ended, same_place, signature
from transferlab.records import temporary_beside

BEAT_SECONDS = 2.0
STALE_SECONDS = float(os.environ.get("TRANSFERLAB_STALE_SECONDS", "60"))
"""A counter that stands still for so long belongs to nobody: long enough for a slow file system."""
POLL_SECONDS = 0.1


class LeaseLostError(RunError):
    """Another process took over what this one was at work on."""


@dataclass(frozen=True)
class Holder:
    """What a lease says of its holder.

    Attributes:
        token: unique to one holding.
        beat: the counter; it moves every two seconds.
        released: the holder is done, or let go.
        host: name of the machine, for people.
        process: its signature.
    """

    token: str
    beat: int
    released: bool
    host: str
    process: str

    def is_gone(self) -> bool:
        """Whether it is known without waiting that nobody holds this lease any more."""
        return self.released or has_ended(self.process)


def holder_of(path: Path) -> Holder | None:
    """Return who holds, or last held, what ``path`` names; None where nobody ever did."""
    for generation in sorted(_generations(path), reverse=True):
        found = _read(_file(path, generation))
        if found is not None:
            return found
    return None


def alive(paths: Iterable[Path], patience: float | None = None) -> set[Path]:
    """Return those of the paths that somebody is at work on.

    On another machine that takes a few beats to see, for all of them together.

    Args:
        paths: what leases guard.
        patience: seconds to watch the counters for; by default five beats.
    """
    found, unsure = set(), {}
    for path in paths:
        holder = holder_of(path)
        if holder is None or holder.is_gone():
            continue
        if same_place(holder.process):
            found.add(path)
        else:
            unsure[path] = holder
    until = time.monotonic() + (5 * BEAT_SECONDS if patience is None else patience)
    while unsure and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        for path, before in list(unsure.items()):
            now = holder_of(path)
            if now is not None and (now.token, now.beat) != (before.token, before.beat):
                del unsure[path]
                found |= set() if now.released else {path}
    return found


@contextmanager
def held(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold what ``path`` names for the length of the block; its folder must exist.

    Lease files are hidden ones beside it. A holder that finds itself replaced is interrupted.

    Args:
        path: what is guarded; need not exist.
        wait: for another holder to end or to vanish. If False and there is one, the block runs
            without the lease.

    Yields:
        whether the lease is held.

    Raises:
        LeaseLostError: another process took over, because this one stood still for too long.
    """
    lease = _taken(path, wait)
    if lease is None:
        yield False
        return
    try:
        with lease:
            yield True
    except _Replaced:
        raise LeaseLostError(
            f"{path} was taken over by another process, because this one stood still for more than "
            f"{STALE_SECONDS:g} s. Nothing is lost: that process goes on."
        ) from None


class _Replaced(BaseException):
    """Raised in the holder's thread; no ``Exception``, so that nobody records it as a failure."""


class _Lease:
    """One generation, held: a thread moves its counter until the block ends."""

    def __init__(self, path: Path, generation: int, holder: dict[str, Any]) -> None:
        self._path, self._generation, self._record = path, generation, holder
        self.lost, self._done = threading.Event(), threading.Event()
        self._owner = os.getpid()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")

    def __enter__(self) -> "_Lease":
        self._holder = threading.get_ident()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if os.getpid() != self._owner:
            return  # a fork of the holder holds nothing
        self._done.set()
        self._thread.join()
        if not self.lost.is_set() and not self._replaced():
            with suppress(OSError):  # a full disk: the lease goes stale by itself
                self._write(released=True)

    def _beat(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            with suppress(OSError):
                if self._replaced():
                    self.lost.set()
                    # no signal: background processes often ignore the one that would do
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(self._holder), ctypes.py_object(_Replaced)
                    )
                    return
                self._write(released=False)

    def _replaced(self) -> bool:
        return max(_generations(self._path), default=0) > self._generation

    def _write(self, *, released: bool) -> None:
        self._record |= {"beat": self._record["beat"] + 1, "released": released}
        temporary = _temporary(self._path, self._record)
        try:
            temporary.replace(_file(self._path, self._generation))
        finally:
            temporary.unlink(missing_ok=True)


def _taken(path: Path, wait: bool) -> _Lease | None:
    watched: tuple[str, int] | None = None
    since = time.monotonic()
    while True:
        last = max(_generations(path), default=0)
        holder = _read(_file(path, last)) if last else None
        sign = (holder.token, holder.beat) if holder else (f"generation {last}", 0)
        if sign != watched:
            watched, since = sign, time.monotonic()
        stale = time.monotonic() - since > STALE_SECONDS
        if last == 0 or (holder is not None and holder.is_gone()) or stale:
            lease = _created(path, last + 1)
            if lease is not None:
                return lease
            continue  # another process was faster
        if not wait:
            return None
        time.sleep(POLL_SECONDS)


def _created(path: Path, generation: int) -> _Lease | None:
    """Create a generation with its content at once; None where another process has."""
    record: dict[str, Any] = {"token": uuid.uuid4().hex, "beat": 0, "released": False}
    record |= {"host": socket.gethostname(), "process": signature()}
    temporary = _temporary(path, record)
    try:
        _exclusively(temporary, _file(path, generation))
    except (FileExistsError, FileNotFoundError):
        return None
    finally:
        temporary.unlink(missing_ok=True)
    for old in _generations(path):
        if old < generation:
            _file(path, old).unlink(missing_ok=True)
    return _Lease(path, generation, record)


def _exclusively(temporary: Path, target: Path) -> None:
    try:
        target.hardlink_to(temporary)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:  # a file system without hard links
        with target.open("xb") as stream:
            stream.write(temporary.read_bytes())


def _temporary(path: Path, record: dict[str, Any]) -> Path:
    temporary = temporary_beside(path)
    try:
        temporary.write_text(json.dumps(record))
    except OSError:  # a full disk makes the file and leaves it empty
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _file(path: Path, generation: int) -> Path:
    return path.parent / f".{path.name}.lease.{generation:06d}"


def _generations(path: Path) -> list[int]:
    prefix = f".{path.name}.lease."
    try:
        names = [entry.name for entry in os.scandir(path.parent)]
    except FileNotFoundError:
        return []
    ends = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    return [int(end) for end in ends if end.isdigit()]


def _read(file: Path) -> Holder | None:
    try:
        record = json.loads(file.read_text())
        return Holder(**record)
    except (OSError, ValueError, TypeError):
        return None  # gone meanwhile, or half written where there are no hard links
