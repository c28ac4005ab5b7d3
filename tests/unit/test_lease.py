import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from transferlab import lease
from transferlab.lease import LeaseLostError, alive, held, holder_of
from transferlab.processes import signature


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "work"


def is_alive(path: Path, patience: float | None = None) -> bool:
    return path in alive([path], patience)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.5)


def elsewhere(path: Path, **changes: Any) -> dict[str, Any]:
    """Leave the lease of a process on another machine."""
    record = {
        "token": "other", "beat": 3, "released": False, "host": "far",
        "process": "anotherboot0-1-500", **changes,
    }  # fmt: skip
    (path.parent / f".{path.name}.lease.000007").write_text(json.dumps(record))
    return record


def test_one_holds_and_lets_go(path: Path) -> None:
    assert holder_of(path) is None
    with held(path) as mine:
        assert mine
        found = holder_of(path)
        assert found is not None
        assert (found.process, found.released) == (signature(), False)
        assert is_alive(path)
        with held(path, wait=False) as again:
            assert not again
    assert not is_alive(path)
    with held(path, wait=False) as again:
        assert again
    assert len(list(path.parent.iterdir())) == 1, "one small file stays, and nothing temporary"


def test_an_error_lets_go_too(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), held(path):
        raise ZeroDivisionError
    assert not is_alive(path)


def count_up(folder: str, times: int) -> None:
    number = Path(folder) / "number"
    for _ in range(times):
        with held(Path(folder) / "work"):
            found = int(number.read_text())
            time.sleep(0.001)
            number.write_text(str(found + 1))


def test_processes_take_turns(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=count_up, args=(str(tmp_path), 10)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "number").read_text() == "30"


HOLD = "import sys,time; from pathlib import Path; from transferlab.lease import held\n"
HOLD += "with held(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def test_what_a_killed_process_held_is_free_at_once(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert is_alive(path)
        process.send_signal(signal.SIGKILL)
        while not (found := holder_of(path)) or not found.is_gone():
            time.sleep(0.01)
        with held(path, wait=False) as mine:
            assert mine


def test_another_machines_lease_is_watched_by_its_counter(path: Path, quick: None) -> None:
    elsewhere(path)
    with held(path, wait=False) as mine:
        assert not mine, "who can't be seen is believed for a while"
    assert not is_alive(path, patience=0.2)
    stop = threading.Event()

    def beat() -> None:
        number = 3
        while not stop.wait(0.05):
            number += 1
            elsewhere(path, beat=number)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        assert is_alive(path, patience=1.0)
        taken = threading.Event()
        waiting = threading.Thread(target=lambda: lease._taken(path, True) and taken.set())
        waiting.start()
        assert not taken.wait(1.5), "a counter that moves is never taken from its holder"
    finally:
        stop.set()
        beating.join()
    assert taken.wait(5), "one that stands still is"
    waiting.join()


def test_a_clock_that_jumps_changes_nothing(
    path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    with held(path):
        for hours in (-1000, 1000):
            monkeypatch.setattr(time, "time", lambda hours=hours: real() + 3600 * hours)
            os.utime(lease._file(path, 1), (0, 0))
            assert is_alive(path)
            with held(path, wait=False) as mine:
                assert not mine


def test_who_was_away_too_long_stops(path: Path, quick: None) -> None:
    """A machine that slept finds a later generation: it ends, and leaves that one alone."""

    def sleep_through() -> None:
        with held(path):
            elsewhere(path)
            for _ in range(2000):
                time.sleep(0.01)

    with pytest.raises(LeaseLostError, match="taken over"):
        sleep_through()
    found = holder_of(path)
    assert found is not None
    assert (found.token, found.released) == ("other", False)


def test_a_restarted_machine_or_a_reused_pid_holds_nothing(path: Path) -> None:
    with held(path):
        place, pid, started = signature().split("-")
    elsewhere(path, process=f"{place}-{pid}-{int(started) - 500}")
    with held(path, wait=False) as mine:
        assert mine, "the number is another process's now"


def test_a_file_system_without_links_still_lets_one_win(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with held(path, wait=False) as mine, held(path, wait=False) as other:
        assert (mine, other) == (True, False)
