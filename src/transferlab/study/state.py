"""How far a study is, and what ``study.json`` says of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig

from transferlab.planning import Plan
from transferlab.records import FORMAT, Record
from transferlab.split_data import data_name
from transferlab.study.declaration import TUNING_SEED, Arm, Cell, Declaration
from transferlab.study.tuning import Choice, Settings


@dataclass
class ArmState:
    """One arm of one cell as the study goes on."""

    arm: Arm
    cfg: DictConfig
    tuning_cfg: DictConfig
    scores: dict[Settings, list[float]] = field(default_factory=dict)
    tuning_runs: list[str] = field(default_factory=list)
    choice: Choice | None = None
    runs: list[Plan] = field(default_factory=list)


@dataclass
class CellState:
    """One family of comparisons as the study goes on."""

    cell: Cell
    arms: list[ArmState]
    grid: dict[str, list[Any]] = field(default_factory=dict)
    metric: str = "accuracy"


def tuning_seeds(tune: DictConfig) -> range:
    """Return the seeds of tuning runs: none of them ever enters a verdict."""
    return range(TUNING_SEED, TUNING_SEED + int(tune.seeds))


def study_record(cfg: DictConfig, declaration: Declaration, cells: Sequence[CellState]) -> Record:
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
        "tuning": _tuning(state, state.choice, cell, tune),
        "runs": [{"seed": plan.cfg.seed, "run_id": plan.run_id} for plan in state.runs],
    }


def _tuning(
    state: ArmState, choice: Choice | None, cell: CellState, tune: DictConfig | None
) -> Record | None:
    if choice is None or tune is None:
        return None
    return {
        "grid": cell.grid,
        "shots": tune.shots,
        "seeds": list(tuning_seeds(tune)),
        "trials": len(state.tuning_runs),
        "scores": [
            {"settings": dict(settings), "validation": values}
            for settings, values in sorted(state.scores.items())
        ],
        "best": dict(choice.best),
        "edges": dict(choice.edges),
        "rate_at_edge": bool(choice.edges),
        "runs": state.tuning_runs,
    }
