"""Pairs the runs of two arms by replicate and lines their test answers up, item by item."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from transferlab.analysis.arms import Arm
from transferlab.analysis.load import Answers, read_items
from transferlab.records import Record

SIDES = ("transfer", "scratch")

ENOUGH = 0.8
"""The share of planned pairs that must be complete."""


class Predictions:
    """Reads each run's test answers once, and remembers which could not be read.

    Args:
        directory: of the study.
        logits: whether the scores of all classes are wanted.
        file: of the runs' folders.
        split: whose rows are wanted.
    """

    def __init__(
        self,
        directory: Path,
        *,
        logits: bool = False,
        file: str = "predictions.parquet",
        split: str = "test",
    ) -> None:
        self.directory, self.logits = directory, logits
        self._where = {"file": file, "split": split}
        self.unreadable: list[str] = []
        self._read: dict[str, Answers | None] = {}
        self._first: Answers | None = None

    def of(self, run: Record) -> Answers | None:
        """The run's test answers, None where its file is missing or damaged."""
        run_id = str(run["run_id"])
        if run_id not in self._read:
            try:
                self._read[run_id] = self._shared(
                    read_items(self.directory, run_id, logits=self.logits, **self._where)
                )
            except ValueError as error:
                self.unreadable.append(str(error))
                self._read[run_id] = None
        return self._read[run_id]

    def forget(self) -> None:
        """Drop what was read: the next cell has other runs."""
        self._read.clear()
        self._first = None

    def _shared(self, items: Answers) -> Answers:
        """Keep one copy of the item ids, which are most of the memory, for all runs of a cell."""
        if self._first is None:
            self._first = items
        elif np.array_equal(self._first.ids, items.ids):
            return replace(items, ids=self._first.ids)
        return items


@dataclass(frozen=True)
class Pairs:
    """The complete pairs of two arms, and what became of the others.

    Attributes:
        seeds: (n,) the replicates that both arms finished.
        transfer: (n) test answers of the arm, in the order of ``seeds``.
        scratch: (n) test answers of the arm it is compared with.
        planned: how many pairs this look plans.
        halves: for each planned seed at which a run diverged, the answers of both sides, None for
            the side that diverged.
        failures: counts for both arms, and Fisher's exact p for their difference.
        n_classes: classes that a guess would choose among.
        rho: share of the pool that a replicate's subset takes, the largest of them; 1 where the
            records don't say, since no claim about new data follows from that.
    """

    seeds: tuple[int, ...]
    transfer: tuple[Answers, ...]
    scratch: tuple[Answers, ...]
    planned: int
    halves: tuple[tuple[Answers | None, Answers | None], ...]
    failures: Record
    n_classes: int
    rho: float = 1.0

    @property
    def n_items(self) -> int:
        """Test items M."""
        return len(self.scratch[0].ids)

    @property
    def with_logits(self) -> bool:
        """Whether every answer has the scores of all classes."""
        return all(one.logits is not None for one in (*self.transfer, *self.scratch))

    def clusters(self) -> NDArray[np.int64] | None:
        """(M,) group numbers where the target binds items into groups, else None."""
        groups = self.scratch[0].groups
        return None if groups is None else codes(groups)

    def enough(self) -> bool:
        """Whether at least 80 % of the planned pairs are complete."""
        return len(self.seeds) >= ENOUGH * self.planned

    def unstable(self) -> bool:
        """Whether one arm diverges more often by over a fifth of the planned replicates."""
        counts = [self.failures[arm]["diverged"] for arm in SIDES]
        return bool(abs(counts[0] - counts[1]) > self.planned / 5)


def pair(arm: Arm, other: Arm, planned: Sequence[int], predictions: Predictions) -> Pairs | None:
    """Pair two arms over the planned seeds; None where they answered different test items."""
    kept: list[tuple[int, Answers, Answers]] = []
    halves: list[tuple[Answers | None, Answers | None]] = []
    for seed in planned:
        first, second = (_answers(side, seed, predictions) for side in (arm, other))
        if first is not None and second is not None:
            kept.append((seed, first, second))
        elif all(_ended(side, seed) for side in (arm, other)):
            halves.append((first, second))
    items = [answer for _, *answers in kept for answer in answers]
    items += [answer for half in halves for answer in half if answer is not None]
    first_ids = items[0].ids if items else ()
    if any(
        answer.ids is not first_ids and not np.array_equal(first_ids, answer.ids)
        for answer in items
    ):
        return None
    return Pairs(
        tuple(seed for seed, _, _ in kept),
        tuple(answer for _, answer, _ in kept),
        tuple(answer for _, _, answer in kept),
        len(planned),
        tuple(halves),
        _failures(arm, other, planned),
        _n_classes(arm),
        _rho(arm),
    )


def _answers(side: Arm, seed: int, predictions: Predictions) -> Answers | None:
    run = side.done().get(seed)
    return None if run is None else predictions.of(run)


def _ended(side: Arm, seed: int) -> bool:
    return seed in side.done() or seed in side.diverged()


def _rho(arm: Arm) -> float:
    shares = [
        int(run["n_train"]) / int(run["n_pool"])
        for run in arm.runs.values()
        if run.get("n_train") and run.get("n_pool")
    ]
    return max(shares, default=1.0)


def _n_classes(arm: Arm) -> int:
    named = [len(run.get("classes") or []) for run in arm.runs.values()]
    return max([*named, 2])


def codes(values: NDArray[Any]) -> NDArray[np.int64]:
    """Number the distinct values from 0, in sorted order."""
    return np.asarray(np.unique(values, return_inverse=True)[1], dtype=np.int64)


def _failures(arm: Arm, other: Arm, planned: Sequence[int]) -> Record:
    counts: Record = {}
    for name, side in zip(SIDES, (arm, other), strict=True):
        done, diverged = (
            len(side.done().keys() & set(planned)),
            len({*side.diverged()} & {*planned}),
        )
        counts[name] = {
            "planned": len(planned),
            "done": done,
            "diverged": diverged,
            "missing": len(planned) - done - diverged,
        }
    # Counted among the runs that ended either way: a missing run is no outcome.
    table = np.array([[counts[name][key] for key in ("diverged", "done")] for name in SIDES])
    counts["fisher_p"] = float(fisher_exact(table).pvalue) if table.any() else None
    return counts
