"""How far a study is, and what ``study.json`` says of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import DictConfig

from transferlab.planning import Plan
from transferlab.records import FORMAT, Record
from transferlab.split_data import data_name
from transferlab.study.declaration import TUNING_SEED, Arm, Cell, Declaration, plain
from transferlab.study.space import Space, Trial
from transferlab.study.tuning import Choice, Settings, is_budget, points

SHARED_SEEDS = 3
"""Tuning seeds of settings that serve all replicates, where a study names no other number."""


@dataclass
class ArmState:
    """One arm of one cell as the study goes on."""

    arm: Arm
    cfg: DictConfig
    tuning_cfg: DictConfig
    scores: dict[Settings, dict[int, float]] = field(default_factory=dict)
    tuning_runs: list[str] = field(default_factory=list)
    choice: Choice | None = None
    own: dict[int, Settings] = field(default_factory=dict)
    runs: list[Plan] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)  # of a search

    def best(self, seed: int) -> Settings:
        """Return the settings that a replicate runs at: its own where it was tuned by itself."""
        return self.own.get(seed, self.choice.best if self.choice is not None else ())


@dataclass
class CellState:
    """One family of comparisons as the study goes on."""

    cell: Cell
    arms: list[ArmState]
    grid: dict[str, list[Any]] = field(default_factory=dict)
    space: Space = field(default_factory=dict)
    metric: str = "accuracy"


def tuning_seeds(tune: DictConfig) -> range:
    """Return the seeds of shared tuning: none of them ever enters a verdict."""
    return range(TUNING_SEED, TUNING_SEED + int(tune.seeds or SHARED_SEEDS))


@dataclass(frozen=True)
class Search:
    """How a search goes on, where a study names nothing else."""

    trials: int = 12
    batch: int = 4
    sampler: str = "tpe"
    prune: str | None = None


def search_of(tune: DictConfig) -> Search:
    """Return how a study's search goes on."""
    named = {key: tune[key] for key in ("trials", "batch", "sampler", "prune")}
    return Search(**{key: value for key, value in named.items() if value is not None})


def trials_of(cell: CellState, tune: DictConfig) -> int:
    """Return how many settings every arm of a cell tries, as far as is known."""
    return search_of(tune).trials if cell.space else len(points(cell.grid))


def study_record(
    cfg: DictConfig, declaration: Declaration, cells: Sequence[CellState], planned: int = 0
) -> Record:
    """Return ``study.json``: the family is what was declared, whatever lies in the folder."""
    study = cfg.study
    verdict = study.verdict if study is not None else {}
    seeds = list(declaration.seeds)
    tune = study.tune if study is not None else None
    return {
        "format": FORMAT,
        "name": str(cfg.name),
        "command": "transferlab run " + " ".join(declaration.shared),
        "tuned": declaration.tuned,
        "planned": planned,
        "metric": cells[0].metric,
        "margin": verdict.get("margin", 0.01),
        "alpha": verdict.get("alpha", 0.05),
        "scope": verdict.get("scope", "this_pool"),
        "seeds": seeds,
        "looks": list(study.looks) if study is not None and study.looks else [len(seeds)],
        "cells": [_cell(cell, tune) for cell in cells],
    }


def _cell(state: CellState, tune: DictConfig | None) -> Record:
    cfg = state.arms[0].cfg
    return {
        "id": state.cell.id,
        "values": dict(state.cell.values),
        "target": data_name(cfg.target),
        "backbone": str(cfg.backbone.name),
        "metric": state.metric,
        "budget": "own_best" if state.cell.own_best else "equal",
        "own_best_of": state.cell.twin,
        "arms": [_arm(arm, state, tune) for arm in state.arms],
    }


def _arm(state: ArmState, cell: CellState, tune: DictConfig | None) -> Record:
    cfg = state.cfg
    random = cfg.strategy.init == "random" or cfg.source.kind == "none"
    return {
        "id": state.arm.id,
        "role": state.arm.role,
        "source": "none" if random else data_name(cfg.source),
        "strategy": str(cfg.strategy.name),
        "overrides": list(state.arm.overrides),
        "control": state.arm.control,
        "of": state.arm.of,
        "without": state.arm.without,
        "tuning": _tuning(state, state.choice, cell, tune),
        "runs": [{"seed": plan.cfg.seed, "run_id": plan.run_id} for plan in state.runs],
    }


def _tuning(
    state: ArmState, choice: Choice | None, cell: CellState, tune: DictConfig | None
) -> Record | None:
    if choice is None or tune is None:
        return None
    return {
        "grid": None if cell.space else cell.grid,
        "search": _search(tune) if cell.space else None,
        "shots": tune.shots,
        "per": tune.per,
        "seeds": sorted({seed for scores in _scores(state) for seed in scores}),
        "trials": len(state.scores) if state.own else len(state.tuning_runs),
        "pruned": sum(len(trial.pruned) for trial in state.trials),
        "scores": _searched(state) if cell.space else _gridded(state),
        "best": dict(choice.best),
        "best_by_seed": {str(seed): dict(best) for seed, best in state.own.items()},
        "edges": dict(choice.edges),
        "rate_at_edge": any(not is_budget(key) for key in choice.edges),
        "budget_at_edge": any(is_budget(key) for key in choice.edges),
        "runs": state.tuning_runs,
    }


def _scores(state: ArmState) -> list[dict[int, float]]:
    """Return the scores by tuning seed of everything that an arm tried."""
    return [*state.scores.values(), *(trial.scores for trial in state.trials)]


def _gridded(state: ArmState) -> list[Record]:
    return [
        {"settings": dict(settings), "validation": list(found.values())}
        for settings, found in sorted(state.scores.items())
    ]


def _searched(state: ArmState) -> list[Record]:
    """Return a search's trials in the order in which they were asked for."""
    return [
        {
            "settings": dict(trial.settings),
            "validation": list(trial.scores.values()),
            "pruned": list(trial.pruned),
        }
        for trial in state.trials
    ]


def _search(tune: DictConfig) -> Record:
    return {"space": plain(tune.search)} | asdict(search_of(tune))
