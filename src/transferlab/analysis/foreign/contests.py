"""Pairs the runs of a foreign table by seed and measures each arm against scratch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import fisher_exact

from transferlab.analysis.foreign.items import ItemFiles, ItemScores
from transferlab.analysis.foreign.options import BY_CLASS, MEAN_OF_CORRECT, Options
from transferlab.analysis.foreign.rows import Key, Row
from transferlab.analysis.foreign.table import ForeignTable
from transferlab.analysis.pairs import ENOUGH, SIDES
from transferlab.records import Record
from transferlab.stats.crossed import Comparison, compare
from transferlab.stats.paired_scores import compare_scores, largest_test_part

Runs = Mapping[str, Row]


@dataclass(frozen=True)
class Contest:
    """One arm of one target against scratch: measured, or with the reason why not.

    Attributes:
        target: what both were adapted to.
        arm: source and strategy.
        obstacle: why the two may not be compared at all; None where they may.
        seeds: the replicates that both finished.
        planned: replicates that either side has a row for.
        gains: each replicate's gain, higher is better, in the metric's unit.
        errors: mean error of transfer and of scratch for each pair; empty where scores are no
            share of right answers.
        n_items: test items; None where unknown.
        by_items: whether the answers item by item are known.
        some_items: whether they are known for some of the runs and so could not be used.
        found: the estimate; None without a pair.
        largest_test_part: upper bound of the variance that test items bring, where there is one.
        failures: counts for both sides, and Fisher's exact p for their difference.
    """

    target: str
    arm: Key
    obstacle: str | None
    seeds: tuple[str, ...]
    planned: int
    gains: tuple[float, ...]
    errors: tuple[tuple[float, ...], tuple[float, ...]] | None
    n_items: int | None
    by_items: bool
    some_items: bool
    found: Comparison | None
    largest_test_part: float | None
    failures: Record

    def enough(self) -> bool:
        """Whether at least 80 % of the pairs are complete."""
        return bool(self.seeds) and len(self.seeds) >= ENOUGH * self.planned

    def unstable(self) -> bool:
        """Whether one side fails more often by over a fifth of the replicates."""
        counts = [self.failures[side]["diverged"] for side in SIDES]
        return bool(abs(counts[0] - counts[1]) > self.planned / 5)


def contests_of(
    table: ForeignTable, target: str, options: Options, files: ItemFiles
) -> list[Contest]:
    """Measure every arm of one target against scratch.

    Raises:
        UserError: a file of items is missing, damaged or another run's.
    """
    scratch = table.scratch(target)
    found = [
        _contest(target, arm, table.runs(target, arm), scratch, options, files)
        for arm in table.arms(target)
    ]
    files.forget()
    return found


def _contest(
    target: str, arm: Key, runs: Runs, scratch: Runs, options: Options, files: ItemFiles
) -> Contest:
    planned = list(dict.fromkeys([*scratch, *runs]))
    kept = [
        seed
        for seed in planned
        if all(seed in side and not side[seed].failed for side in (runs, scratch))
    ]
    pairs = [(runs[seed], scratch[seed]) for seed in kept]
    rows = [row for pair in pairs for row in pair]
    sizes = {row.n_items for row in rows if row.n_items is not None}
    n_items = sizes.pop() if len(sizes) == 1 else None
    with_items = [row.items is not None for row in rows]
    by_items = bool(rows) and all(with_items)
    obstacle = "different_test_items" if sizes else None
    found = bound = None
    if not scratch:
        obstacle = "no_scratch_arm"
    elif rows and not obstacle:
        transfer, base = (np.array([pair[side].score for pair in pairs]) for side in (0, 1))
        if by_items:
            found = _by_items(pairs, options, files)
            obstacle = None if found else "different_test_items"
            n_items = found.n_items if found else None
        else:
            found = compare_scores(
                options.sign * transfer, options.sign * base, n_items=n_items or 0
            )
            if options.metric in MEAN_OF_CORRECT and n_items and n_items > 1:
                bound = largest_test_part(transfer, base, n_items)
    return Contest(
        target=target,
        arm=arm,
        obstacle=obstacle,
        seeds=tuple(kept),
        planned=len(planned),
        gains=tuple(options.sign * (first.score - second.score) for first, second in pairs),
        errors=_errors(pairs, options),
        n_items=n_items,
        by_items=by_items,
        some_items=any(with_items) and not by_items,
        found=found,
        largest_test_part=bound,
        failures=_failures(runs, scratch, planned),
    )


def _by_items(
    pairs: Sequence[tuple[Row, Row]], options: Options, files: ItemFiles
) -> Comparison | None:
    """The crossed comparison; None where two runs were scored on different items."""
    sides = [[files.of(pair[side]) for pair in pairs] for side in (0, 1)]
    first = sides[1][0]
    if not all(_alike(first, other, options) for side in sides for other in side):
        return None
    transfer, scratch = (options.sign * np.stack([run.scores for run in side]) for side in sides)
    classes = first.labels if options.metric in BY_CLASS else None
    return compare(transfer, scratch, clusters=first.groups, classes=classes)


def _alike(first: ItemScores, other: ItemScores, options: Options) -> bool:
    fields = ["ids", "groups", *(["labels"] if options.metric in BY_CLASS else [])]
    return all(np.array_equal(getattr(first, name), getattr(other, name)) for name in fields)


def _errors(
    pairs: Sequence[tuple[Row, Row]], options: Options
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    if options.metric not in MEAN_OF_CORRECT:
        return None
    first, second = (tuple(1 - pair[side].score for pair in pairs) for side in (0, 1))
    return first, second


def _failures(runs: Runs, scratch: Runs, planned: Sequence[str]) -> Record:
    counts: Record = {}
    for name, side in zip(SIDES, (runs, scratch), strict=True):
        failed = sum(row.failed for row in side.values())
        counts[name] = {
            "planned": len(planned),
            "done": len(side) - failed,
            "diverged": failed,
            "missing": len(planned) - len(side),
        }
    table = np.array([[counts[name][key] for key in ("diverged", "done")] for name in SIDES])
    counts["fisher_p"] = float(fisher_exact(table).pvalue) if table.any() else None
    return counts
