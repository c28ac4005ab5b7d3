"""What one task of an array is to do: a list of runs, and how far it is with them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transferlab.records import read_json, recorded, sha256_record, write_json

FOLDER = "slurm"
"""In a study's folder: submissions, their logs, and which job holds which runs."""


@dataclass(frozen=True)
class Task:
    """Runs that one task makes, one after another.

    Attributes:
        runs: their directories.
        again: by run id, the hash of a record that says "failed" and is to be made again.
    """

    runs: Sequence[str]
    again: dict[str, str] = field(default_factory=dict)

    def pending(self) -> list[str]:
        """Return the runs that have no record, or only one that is to be replaced."""
        return [run for run in self.runs if not self._stands(Path(run))]

    def without(self, runs: set[str]) -> "Task":
        """Return the task less some runs."""
        return Task([run for run in self.runs if run not in runs], self.again)

    def _stands(self, directory: Path) -> bool:
        record = recorded(directory)
        return record is not None and sha256_record(record) != self.again.get(directory.name)


def read_tasks(path: Path) -> list[Task]:
    """Read the tasks of an array."""
    return [Task(task["runs"], task["again"]) for task in read_json(path)]


def write_tasks(folder: Path, tasks: Sequence[Task]) -> Path:
    """Write the tasks of an array into a study's folder; the name follows from the content."""
    plain = [{"runs": list(task.runs), "again": task.again} for task in tasks]
    path = folder / FOLDER / f"tasks-{sha256_record(plain)[:12]}.json"
    write_json(path, plain)
    return path.absolute()


def read_request(path: Path) -> Task:
    """Read a request file of a study."""
    asked = read_json(path)
    return Task(asked["runs"], asked.get("again", {}))


def own_task(path: Path) -> Task:
    """Return the task that this process's place in the array asks for."""
    return read_tasks(path)[int(os.environ.get("SLURM_ARRAY_TASK_ID", 0))]
