"""What is done, failed and missing in a directory, read from its files."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transferlab.errors import UserError
from transferlab.records import read_json

LISTED = 10
"""Failures that are shown one by one; the rest is counted."""


@dataclass(frozen=True)
class Status:
    """Counts of a directory's runs.

    Attributes:
        counts: runs by status: done, diverged, failed, unfinished, missing.
        by_purpose: the same for each purpose.
        failures: (run id, what it was, reason) of failed and diverged runs.
        seconds: total time of the runs that have a record.
        planned: replicate runs that the study declares, 0 where there is no study.
    """

    counts: Counter[str]
    by_purpose: dict[str, Counter[str]]
    failures: tuple[tuple[str, str, str], ...]
    seconds: float
    planned: int


def read_status(directory: Path) -> Status:
    """Read a directory's records.

    Raises:
        UserError: the directory holds no runs.
    """
    folder = directory / "runs"
    if not folder.is_dir():
        raise UserError(
            f"{directory} holds no runs/ folder. Give the folder that a study or run printed, "
            "such as outputs/digits."
        )
    counts: Counter[str] = Counter()
    by_purpose: dict[str, Counter[str]] = {}
    failures, seconds, seen = [], 0.0, set()
    for run in sorted(path for path in folder.iterdir() if path.is_dir()):
        record = _record(run / "run.json")
        status = str(record.get("status", "unfinished"))
        seen.add(run.name)
        counts[status] += 1
        by_purpose.setdefault(str(record.get("purpose", "?")), Counter())[status] += 1
        seconds += float((record.get("cost") or {}).get("total_seconds") or 0.0)
        if status in ("failed", "diverged"):
            what = (
                f"{record.get('strategy')} from {record.get('source')}, seed {record.get('seed')}"
            )
            failures.append((run.name, what, str(record.get("reason"))))
    planned = _planned(directory / "study.json")
    missing = len(planned - seen)
    if missing:
        counts["missing"] = missing
    return Status(counts, by_purpose, tuple(failures), seconds, len(planned))


def _planned(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    study = read_json(path)
    return {run["run_id"] for cell in study["cells"] for arm in cell["arms"] for run in arm["runs"]}


def _record(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(path) if path.is_file() else {}
    except ValueError:
        return {}
    return found
