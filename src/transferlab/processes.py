"""Which process wrote a file, and whether it is known to have ended."""

import hashlib
import os
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path

import psutil


def signature() -> str:
    """Name this process as no other is named, on any machine: ``place-pid-started``."""
    return _signature(os.getpid())


def same_place(signed: str) -> bool:
    """Whether a signature's process ran on this machine, since it was last started."""
    return signed.split("-")[0] == _place()


def has_ended(signed: str) -> bool:
    """Whether a process is known to have ended; False for one of another machine.

    Args:
        signed: what :func:`signature` gave in that process. Anything else is of nobody known.
    """
    try:
        place, pid, started = signed.split("-")
        number = int(pid)
    except ValueError:
        return False
    if place != _place():
        return False
    try:
        ended = psutil.Process(number).status() == psutil.STATUS_ZOMBIE
        return ended or _started(number) != started
    except (psutil.NoSuchProcess, OSError):
        return True


@cache
def _signature(pid: int) -> str:
    return f"{_place()}-{pid}-{_started(pid)}"


def _started(pid: int) -> str:
    try:  # ticks since the boot: what others report moves when the clock is set
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except FileNotFoundError:
        return f"{psutil.Process(pid).create_time():.0f}"


@cache
def _place() -> str:
    """Name what shares process ids: one boot of a machine, one container on it."""
    parts: list[Callable[[], str]] = [
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: str(Path("/proc/self/ns/pid").readlink()),
    ]
    found = []
    for part in parts:
        try:
            found.append(part())
        except OSError:  # not Linux: the machine's address and when it was started
            found.append(f"{uuid.getnode():x}.{round(psutil.boot_time() / 60)}")
    return hashlib.sha256(" ".join(found).encode()).hexdigest()[:12]
