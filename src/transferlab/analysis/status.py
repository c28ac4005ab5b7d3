"""What is done, running, failed and lost in a directory, read from its files."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transferlab.errors import UserError
from transferlab.lease import alive, holder_of
from transferlab.records import Record, read_json

LISTED = 10
"""Failures that are shown one by one; the rest is counted."""
LAST_LINES = 3
"""Of a failed run's log."""
STATES = ("done", "diverged", "running", "queued", "lost", "failed")
"""What a run can be. Lost: whoever made it vanished; the study's command goes on with it."""
ENDED = ("done", "diverged", "failed")


@dataclass(frozen=True)
class Failure:
    """A run that failed or diverged.

    Attributes:
        run: its id.
        what: strategy, source and seed.
        reason: in one line.
        log: the last lines of its log.
    """

    run: str
    what: str
    reason: str
    log: tuple[str, ...]


@dataclass(frozen=True)
class Running:
    """A run that somebody is at work on: where, and the last step that it noted."""

    run: str
    where: str
    step: int | None
    steps: int | None


@dataclass(frozen=True)
class Status:
    """Counts of a directory's runs.

    Attributes:
        counts: runs by state.
        by_purpose: the same for each purpose.
        failures: failed and diverged runs.
        running: what is being worked on.
        seconds: total time of the runs that have a record.
        left: expected seconds of what is left with as many at a time as now; None where nothing
            runs or nothing has ended yet.
        command: that goes on, where the directory is a study's.
    """

    counts: Counter[str]
    by_purpose: dict[str, Counter[str]]
    failures: tuple[Failure, ...]
    running: tuple[Running, ...]
    seconds: float
    left: float | None
    command: str


def read_status(directory: Path) -> Status:
    """Read a directory's records and leases.

    Raises:
        UserError: the directory holds no runs.
    """
    folder = directory / "runs"
    if not folder.is_dir():
        raise UserError(
            f"{directory} holds no runs/ folder. Give the folder that a study or run printed, "
            "such as outputs/digits."
        )
    runs = sorted(path for path in folder.iterdir() if path.is_dir())
    records = {run: _record(run / "run.json") for run in runs}
    open_runs = [run for run in runs if "status" not in records[run]]
    busy = alive(run / "run" for run in open_runs)
    states = {run: str(records[run].get("status") or _state(run, busy)) for run in runs}
    study = _record(directory / "study.json")
    purposes = {run: str(records[run].get("purpose") or _purpose(run)) for run in runs}
    counts, by_purpose = Counter(states.values()), _by_purpose(states, purposes)
    unborn = max(int(study.get("planned") or 0) - len(runs), 0)
    unborn = max(unborn, len(_declared(study) - {run.name for run in runs}))
    if unborn:
        counts["queued"] += unborn
        by_purpose.setdefault("not begun", Counter())["queued"] += unborn
    times = [_seconds(records[run]) for run in runs if states[run] in ENDED]
    return Status(
        counts=counts,
        by_purpose=by_purpose,
        failures=tuple(_failures(records)),
        running=tuple(_running(run) for run in runs if states[run] == "running"),
        seconds=sum(times),
        left=_left(counts, times),
        command=str(study.get("command") or ""),
    )


def _state(run: Path, busy: set[Path]) -> str:
    if run / "run" in busy:
        return "running"
    holder = holder_of(run / "run")
    return "queued" if holder is None or holder.released else "lost"


def _by_purpose(
    states: Mapping[Path, str], purposes: Mapping[Path, str]
) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for run, state in states.items():
        found.setdefault(purposes[run], Counter())[state] += 1
    return found


def _left(counts: Counter[str], times: list[float]) -> float | None:
    if not counts["running"] or not times:
        return None
    open_runs = counts["running"] + counts["queued"] + counts["lost"]
    return open_runs * sum(times) / len(times) / counts["running"]


def _failures(records: Mapping[Path, Record]) -> Iterator[Failure]:
    for run, record in records.items():
        if record.get("status") in ("failed", "diverged"):
            what = f"{record.get('strategy')} from {record.get('source')}, seed "
            what += str(record.get("seed"))
            yield Failure(run.name, what, str(record.get("reason")), _last_lines(record))


def _last_lines(record: Record) -> tuple[str, ...]:
    path = Path(str(record.get("log") or ""))
    if not record.get("log") or not path.is_file():
        return ()
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return tuple(lines[-LAST_LINES:])


def _running(run: Path) -> Running:
    holder = holder_of(run / "run")
    where = "" if holder is None else holder.host
    return Running(run.name, where, _last_step(run / "metrics.jsonl"), _steps(run))


def _last_step(path: Path) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue  # half a line: it is being written
    return None


def _steps(run: Path) -> int | None:
    found = _setting(run, "  steps: ")
    return int(found) if found and found.isdigit() else None


def _purpose(run: Path) -> str:
    return _setting(run, "purpose: ") or "?"


def _setting(run: Path, key: str) -> str | None:
    """Read one plain line of a resolved configuration; a YAML reader would take far longer."""
    try:
        lines = (run / "config.yaml").read_text().splitlines()
    except OSError:
        return None
    return next((line.removeprefix(key).strip() for line in lines if line.startswith(key)), None)


def _declared(study: Record) -> set[str]:
    return {
        run["run_id"]
        for cell in study.get("cells") or ()
        for arm in cell["arms"]
        for run in arm["runs"]
    }


def _seconds(record: Record) -> float:
    return float((record.get("cost") or {}).get("total_seconds") or 0.0)


def _record(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(path) if path.is_file() else {}
    except ValueError:
        return {}
    return found
