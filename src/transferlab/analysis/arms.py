"""A cell's arms with their runs, and what must agree before two of them may be compared."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transferlab.analysis.load import Study
from transferlab.records import Record

SAME_IN_EVERY_RUN = {
    "budget_steps": "unequal_steps",
    "test_ids_sha256": "different_test_items",
    "backbone": "different_backbone",
    "data_fingerprint": "different_data",
}
"""Fields of run.json that all runs of two arms share, and the reason where they don't."""

SAME_IN_EVERY_PAIR = {
    "split_sha256": "different_split",
    "preprocessing_sha256": "different_preprocessing",
    "image_size": "different_image_size",
    "metric": "different_metric",
    "classes": "different_classes",
}
"""Fields of run.json that both runs of a pair share, and the reason where they don't."""


@dataclass(frozen=True)
class Arm:
    """One declared arm and the replicate runs of it that left a record.

    Attributes:
        declared: its entry in study.json.
        runs: seed to run.json, whatever the status.
    """

    declared: Record
    runs: dict[int, Record]

    @property
    def id(self) -> str:
        """The arm's name within its cell."""
        return str(self.declared["id"])

    @property
    def tuning(self) -> Record:
        """What was tuned and how; empty for an arm without tuning."""
        return self.declared.get("tuning") or {}

    @property
    def trials(self) -> int:
        """How many fits its tuning was given."""
        return int(self.tuning.get("trials", 0))

    @property
    def trials_in_runs(self) -> int:
        """How many sets of weights its runs chose among on validation; 1 where none did."""
        return max((int(run.get("n_trials") or 1) for run in self.runs.values()), default=1)

    @property
    def settings(self) -> Record:
        """The settings its replicates ran at."""
        found: dict[str, list[str]] = {}
        for run in self.runs.values():
            for key, value in (dict(run.get("settings") or {}) or _rate(run)).items():
                found.setdefault(key, []).append(value)
        if not found:
            return dict(self.tuning.get("best") or {})
        return {key: _one_or_all(values) for key, values in found.items()}

    def done(self) -> Mapping[int, Record]:
        """The runs that ended with a test score."""
        return self._done

    @cached_property
    def _done(self) -> Mapping[int, Record]:
        return {s: r for s, r in self.runs.items() if r["status"] == "done" and has_test(r)}

    def diverged(self) -> list[int]:
        """The seeds whose loss blew up or that learned nothing: outcomes, not missing data."""
        return [seed for seed, run in self.runs.items() if run["status"] == "diverged"]


@dataclass(frozen=True)
class Cell:
    """One family: the arms of one target at one size, judged together."""

    declared: Record
    arms: tuple[Arm, ...]

    @property
    def id(self) -> str:
        """The cell's name within its study."""
        return str(self.declared["id"])

    @property
    def budget(self) -> str:
        """``equal``: all arms take the same steps; or ``own_best``: each its own best number."""
        return str(self.declared.get("budget", "equal"))

    def of_role(self, role: str) -> list[Arm]:
        """The arms that are transfers, scratch or controls."""
        return [arm for arm in self.arms if arm.declared["role"] == role]

    def scratch(self) -> Arm | None:
        """The arm that everything is compared with."""
        return next(iter(self.of_role("scratch")), None)

    def arm(self, identifier: str | None) -> Arm | None:
        """The arm of that id, None where it isn't declared."""
        return next((arm for arm in self.arms if arm.id == identifier), None)

    def first(self, field: str) -> Any:
        """A field's value in the first run that states it."""
        for arm in self.arms:
            for run in arm.runs.values():
                if run.get(field) is not None:
                    return run[field]
        return None

    def size(self) -> Record:
        """How many target images its arms learn from: shots, fraction, and what that came to."""
        values = self.declared.get("values") or {}
        stated = {key: self.first(key) for key in ("shots", "fraction")}
        for key, found in stated.items():
            stated[key] = values.get(f"target.{key}") if found is None else found
        return {**stated, "n_target": self.first("n_train")}


def has_test(run: Record) -> bool:
    """Whether the run's test split was scored."""
    return bool((run.get("metrics") or {}).get("test"))


def cells_of(study: Study) -> list[Cell]:
    """The declared cells with the runs that were found for them."""
    return [
        Cell(
            cell,
            tuple(
                Arm(
                    arm,
                    {
                        int(entry["seed"]): study.runs[entry["run_id"]]
                        for entry in arm["runs"]
                        if entry["run_id"] in study.runs
                    },
                )
                for arm in cell["arms"]
            ),
        )
        for cell in study.header["cells"]
    ]


def obstacle(arm: Arm, scratch: Arm | None, *, tuned: bool, equal_steps: bool = True) -> str | None:
    """Why an arm may not be compared with another at all, None where it may.

    Args:
        arm: whose gain is asked for.
        scratch: the arm it is compared with.
        tuned: whether both must have been given the same trials.
        equal_steps: whether both must have been given the same steps.
    """
    if scratch is None:
        return "no_scratch_arm"
    if tuned and arm.trials != scratch.trials:
        return "unequal_trials"
    shared_tuning = _shared_tuning_seeds(arm) | _shared_tuning_seeds(scratch)
    if shared_tuning & (_planned(arm) | _planned(scratch)):
        return "tuning_seeds_overlap"
    runs = [*arm.runs.values(), *scratch.runs.values()]
    for field, reason in SAME_IN_EVERY_RUN.items():
        if len(_values(runs, field)) > 1 and (equal_steps or field != "budget_steps"):
            return reason
    return _unlike_pair(arm, scratch)


def _unlike_pair(arm: Arm, scratch: Arm) -> str | None:
    for seed in sorted(arm.runs.keys() & scratch.runs.keys()):
        for field, reason in SAME_IN_EVERY_PAIR.items():
            if len(_values([arm.runs[seed], scratch.runs[seed]], field)) > 1:
                return reason
    return None


def look_of(cell: Cell, header: Record) -> tuple[int, int]:
    """The planned look to judge at: (its place among the looks, its number of seeds).

    It is the largest one for which at least 80 % of the runs have left a record, so a study that
    is being extended is judged where it stood before.
    """
    looks = sorted(int(look) for look in header.get("looks") or [len(header["seeds"])])
    for index in range(len(looks) - 1, 0, -1):
        seeds = set(header["seeds"][: looks[index]])
        recorded = sum(len(seeds & arm.runs.keys()) for arm in cell.arms)
        if recorded >= 0.8 * looks[index] * len(cell.arms):
            return index, looks[index]
    return 0, looks[0]


def _shared_tuning_seeds(arm: Arm) -> set[int]:
    """Seeds of shared tuning; a replicate tuned by itself sees only its own validation."""
    per_replicate = arm.tuning.get("per") == "replicate"
    return set() if per_replicate else {*arm.tuning.get("seeds", [])}


def _planned(arm: Arm) -> set[int]:
    return {int(entry["seed"]) for entry in arm.declared["runs"]}


def _values(runs: Iterable[Record], field: str) -> set[str]:
    return {str(run.get(field)) for run in runs}


def _one_or_all(values: Sequence[Any]) -> Any:
    """The value that all share; what there is, in words, where replicates were tuned each."""
    distinct = list(dict.fromkeys(values))
    return distinct[0] if len(distinct) == 1 else " or ".join(map(str, sorted(distinct)))


def _rate(run: Record) -> Record:
    return {"optimizer.lr": run["lr"]} if run.get("lr") is not None else {}
