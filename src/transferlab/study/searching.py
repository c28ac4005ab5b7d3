"""Tuning by search: every arm of a cell gets as many trials, asked in batches, made in waves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from omegaconf import DictConfig, OmegaConf

from transferlab.planning import Plan
from transferlab.randomness import derive_seed
from transferlab.records import Record, sha256_record
from transferlab.study.asking import Asker
from transferlab.study.declaration import TUNING_SEED, plain
from transferlab.study.requests import outcomes
from transferlab.study.space import Range, Space, Trial, choose_trial
from transferlab.study.state import ArmState, CellState, search_of, tuning_seeds
from transferlab.study.tuner import score_of
from transferlab.study.tuning import Settings

JOURNAL = "tuning.journal"
"""Optuna's journal of a study's trials, in its folder."""
ENOUGH_CURVES = 4
"""Trials that saw their last step, below which none is stopped for being worse than they."""


@dataclass
class Searcher:
    """Asks for trials, scores them on validation and chooses.

    All arms of a cell draw from the same seed: their first trials try the same settings. The size
    of a batch is declared and not that of the machine, so that the trials are the same anywhere.

    Attributes:
        tune: the study's ``tune``.
        folder: of the study.
        plan: plans a tuning run of an arm, for a seed and settings, with the scores below which
            it is stopped.
        wave: makes runs, under a title.
    """

    tune: DictConfig
    folder: Path
    plan: Callable[[ArmState, int, Settings, list[float] | None], Plan]
    wave: Callable[[str, Sequence[Plan]], None]
    per_replicate = False

    def settle(self, cell: CellState, replicates: Sequence[int]) -> None:
        """Choose the settings of every arm, once for all replicates."""
        del replicates
        if cell.arms[0].choice is not None:
            return
        search = search_of(self.tune)
        askers = [self._asker(cell, state) for state in cell.arms]
        for start in range(0, search.trials, search.batch):
            self._score(cell, askers, start, min(start + search.batch, search.trials))
        for state in cell.arms:
            state.choice = choose_trial(cell.space, state.trials)

    def seeds(self, replicates: int) -> int:
        """Return how many seeds every trial is fitted on."""
        del replicates
        return len(tuning_seeds(self.tune))

    def _asker(self, cell: CellState, state: ArmState) -> Asker:
        search = search_of(self.tune)
        run = self.plan(state, TUNING_SEED, (), None)
        defines = [run.identity, cell.metric, plain(self.tune)]
        return Asker(
            self.folder / JOURNAL,
            f"{state.arm.id} ({cell.cell.id}) {sha256_record(defines)[:12]}",
            cell.space,
            search.sampler,
            search.trials,
            derive_seed(TUNING_SEED, "search", cell.cell.id),
            _configured(state.tuning_cfg, cell.space),
        )

    def _score(self, cell: CellState, askers: Sequence[Asker], start: int, end: int) -> None:
        """Make the trials from ``start`` to ``end`` of every arm, in one wave, and tell them."""
        wave: list[tuple[ArmState, Trial, int, Plan]] = []
        for state, asker in zip(cell.arms, askers, strict=True):
            earlier = list(state.trials)
            for settings in asker.ask(end)[start:]:
                trial = Trial(settings)
                state.trials.append(trial)
                for seed in tuning_seeds(self.tune):
                    below = self._below(earlier, seed)
                    wave.append((state, trial, seed, self.plan(state, seed, settings, below)))
        plans = [plan for _, _, _, plan in wave]
        self.wave(f"tuning {cell.cell.id}", plans)
        for (state, trial, seed, plan), record in zip(wave, outcomes(plans), strict=True):
            _note(trial, seed, record, cell.metric)
            state.tuning_runs.append(plan.run_id)
        for state, asker in zip(cell.arms, askers, strict=True):
            for number, trial in enumerate(state.trials[start:], start):
                asker.tell(number, trial.value, trial.stopped)

    def _below(self, earlier: Sequence[Trial], seed: int) -> list[float] | None:
        """Return the scores below which a run is stopped; None where none ever is."""
        if self.tune.prune is None:
            return None
        return medians([trial.curves[seed] for trial in earlier if seed in trial.curves])


def medians(curves: Sequence[Sequence[float]]) -> list[float]:
    """Return the median score at each validation but the last, of runs that saw all of them.

    Args:
        curves: validation scores in order, of runs on the same seed.

    Returns:
        nothing for fewer than ``ENOUGH_CURVES`` of them.
    """
    if len(curves) < ENOUGH_CURVES:
        return []
    return [float(median(scores)) for scores in zip(*curves, strict=False)][:-1]


def _note(trial: Trial, seed: int, record: Record | None, metric: str) -> None:
    """Take over what a run's record says of a trial."""
    record = record or {}
    trial.scores[seed] = score_of(record, metric)
    if record.get("pruned"):
        trial.pruned.append(seed)
    elif record.get("curve"):
        trial.curves[seed] = [point[f"validation_{record['metric']}"] for point in record["curve"]]


def _configured(cfg: DictConfig, space: Space) -> Settings | None:
    """Return the settings that an arm has by itself, where the search would try them at all."""
    found = tuple((key, OmegaConf.select(cfg, key)) for key in space)
    return found if all(_holds(space[key], value) for key, value in found) else None


def _holds(kind: Range | tuple[object, ...], value: object) -> bool:
    if isinstance(kind, tuple):
        return value in kind
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    on_grid = kind.step is None or ((value - kind.low) / kind.step) % 1 == 0
    return kind.low <= value <= kind.high and on_grid
