"""Tuning of a cell's arms: the same trials for all of them, on seeds of their own or in place."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from transferlab.planning import Plan
from transferlab.records import Record
from transferlab.stats.metrics import LOWER_IS_BETTER
from transferlab.study.requests import outcomes
from transferlab.study.state import ArmState, CellState, tuning_seeds
from transferlab.study.tuning import Settings, choose, extended, points

EXTEND = 2
"""How many values a grid may grow by at either end, where a study names no other number."""


@dataclass
class Tuner:
    """Scores the grid's points on validation and chooses.

    Settings that are tuned once serve all replicates, so that their luck is in every one of them
    alike and in no interval; settings tuned in each replicate bring their luck into its spread.

    Attributes:
        tune: the study's ``tune``.
        plan: plans a tuning run of an arm, for a seed and settings.
        wave: makes runs, under a title.
        expect: hears of runs that were not planned before.
    """

    tune: DictConfig
    plan: Callable[[ArmState, int, Settings], Plan]
    wave: Callable[[str, Sequence[Plan]], None]
    expect: Callable[[int], None]

    @property
    def per_replicate(self) -> bool:
        """Whether every replicate is tuned by itself."""
        return bool(self.tune.per == "replicate")

    def settle(self, cell: CellState, replicates: Sequence[int]) -> None:
        """Choose the settings of every arm for these replicates.

        Once chosen, shared settings stay; the grid grows at the first call only, so that all
        replicates are given the same trials.
        """
        first = cell.arms[0].choice is None
        if not first and not self.per_replicate:
            return
        extend = EXTEND if self.tune.extend is None else self.tune.extend
        for growth in range(extend + 1):
            self._score(cell, replicates if self.per_replicate else tuning_seeds(self.tune))
            for state in cell.arms:
                scores = {point: list(found.values()) for point, found in state.scores.items()}
                state.choice = choose(cell.grid, scores)
            larger = extended(cell.grid, [s.choice for s in cell.arms if s.choice is not None])
            if larger is None or growth == extend or not first:
                break
            more = len(points(larger)) - len(points(cell.grid))
            self.expect(more * len(cell.arms) * self.seeds(len(replicates)))
            cell.grid = larger
        if self.per_replicate:
            for state in cell.arms:
                state.own = {
                    seed: choose(
                        cell.grid, {point: [found[seed]] for point, found in state.scores.items()}
                    ).best
                    for seed in next(iter(state.scores.values()))
                }

    def seeds(self, replicates: int) -> int:
        """Return how many seeds every point of the grid is fitted on."""
        return replicates if self.per_replicate else len(tuning_seeds(self.tune))

    def _score(self, cell: CellState, seeds: Sequence[int]) -> None:
        """Score those points of the grid that have no score yet, for every arm alike."""
        wave = [
            (state, settings, seed, self.plan(state, seed, settings))
            for settings in points(cell.grid)
            for state in cell.arms
            for seed in seeds
            if seed not in state.scores.get(settings, {})
        ]
        plans = [plan for _, _, _, plan in wave]
        self.wave(f"tuning {cell.cell.id}", plans)
        for (state, settings, seed, plan), record in zip(wave, outcomes(plans), strict=True):
            state.scores.setdefault(settings, {})[seed] = score_of(record or {}, cell.metric)
            state.tuning_runs.append(plan.run_id)


def score_of(record: Record, metric: str) -> float:
    """Return a run's score on validation, of which more is better.

    A run without one is worse than any other.
    """
    score = ((record.get("metrics") or {}).get("validation") or {}).get(metric)
    if metric in LOWER_IS_BETTER:
        return -math.inf if score is None or math.isnan(score) else -score
    return math.nan if score is None else score
