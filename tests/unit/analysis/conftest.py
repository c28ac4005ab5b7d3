"""A synthetic study on disk, written exactly as docs/records.md says."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

CLASSES = ["0", "1", "2", "3", "4"]
TEST_IDS = "t" * 64


@dataclass
class Plan:
    """One arm: the shift of its ability, and how its records stray from the rule."""

    id: str
    source: str = "glyphs"
    strategy: str = "fine_tune"
    role: str = "transfer"
    shift: float = 0.0
    noise: float | None = None
    control: str | None = None
    missing: tuple[int, ...] = ()
    diverged: tuple[int, ...] = ()
    trials: int = 12
    tuning_seeds: tuple[int, ...] = (10000, 10001, 10002)
    at_edge: bool = False
    early: float | None = None
    run: dict[str, Any] = field(default_factory=dict)


SCRATCH = Plan("scratch", "none", "scratch", "scratch")


class Synthetic:
    """Writes studies whose arms answer 300 items by a probit model."""

    def __init__(self, directory: Path, seeds: int = 8, items: int = 300, noise: float = 0.06):
        self.directory, self.seeds, self.items, self.noise = directory, seeds, items, noise
        self.own_validation = False
        self.ability = 1.2 * np.random.default_rng(7).normal(size=items) + 0.9
        self.labels = np.random.default_rng(8).integers(0, len(CLASSES), items)

    def write(self, cells: dict[int, list[Plan]], **header: Any) -> Path:
        record: dict[str, Any] = {
            "format": 1,
            "name": "digits",
            "command": "transferlab run experiment=digits",
            "tuned": True,
            "metric": "accuracy",
            "margin": 0.01,
            "alpha": 0.05,
            "scope": "this_pool",
            "seeds": list(range(self.seeds)),
            "looks": [self.seeds],
            "cells": [self.cell(shots, plans) for shots, plans in cells.items()],
            **header,
        }
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "study.json").write_text(json.dumps(record))
        return self.directory

    def cell(self, shots: int, plans: list[Plan]) -> dict[str, Any]:
        return {
            "id": f"target.shots={shots}",
            "values": {"target.shots": shots},
            "target": "digits",
            "backbone": "test_resnet",
            "arms": [self.arm(shots, plan) for plan in plans],
        }

    def arm(self, shots: int, plan: Plan) -> dict[str, Any]:
        entries = []
        for seed in range(self.seeds):
            key = f"{self.directory.name}/{shots}/{plan.id}/{seed}"
            run_id = hashlib.sha256(key.encode()).hexdigest()[:16]
            entries.append({"seed": seed, "run_id": run_id})
            if seed not in plan.missing:
                self.run(run_id, shots, plan, seed)
        return {
            "id": plan.id,
            "role": plan.role,
            "source": plan.source,
            "strategy": plan.strategy,
            "overrides": [f"source={plan.source}", f"strategy={plan.strategy}"],
            "control": plan.control,
            "tuning": {
                "grid": {"optimizer.lr": [0.0003, 0.001, 0.003, 0.01]},
                "seeds": list(plan.tuning_seeds),
                "trials": plan.trials,
                "scores": [{"settings": {"optimizer.lr": 0.003}, "validation": [0.7, 0.71, 0.7]}],
                "best": {"optimizer.lr": 0.01 if plan.at_edge else 0.003},
                "rate_at_edge": plan.at_edge,
                "runs": [],
            },
            "runs": entries,
        }

    def logits(self, log_prob: Any) -> Any:
        """Scores of all classes that agree with the true class's probability."""
        own = np.exp(log_prob)[:, None]
        table = np.repeat((1 - own) / (len(CLASSES) - 1), len(CLASSES), axis=1)
        table[np.arange(self.items), self.labels] = own[:, 0]
        return np.log(table).astype(np.float32)

    def early(self, folder: Path, plan: Plan, seed: int) -> None:
        """Answers on validation early in training; every replicate meets the same images."""
        generator = np.random.default_rng([seed, len(plan.id)])
        z = self.ability + float(plan.early or 0) + 0.3 * generator.normal(size=self.items)
        pd.DataFrame(
            {
                "item_id": [f"{self.validation(seed)}-{index:05d}" for index in range(self.items)],
                "split": "validation",
                "label": self.labels,
                "prediction": np.where(z > 0, self.labels, (self.labels + 1) % len(CLASSES)),
                "log_prob": -np.log1p(np.exp(-1.5 * z)),
            }
        ).to_parquet(folder / "early.parquet")

    def validation(self, seed: int) -> str:
        """What the validation images of a replicate are called."""
        return f"validation-{seed}" if self.own_validation else "validation"

    def run(self, run_id: str, shots: int, plan: Plan, seed: int) -> None:
        digest = hashlib.sha256(run_id.encode()).digest()
        generator = np.random.default_rng(list(digest[:8]))
        noise = self.noise if plan.noise is None else plan.noise
        z = self.ability + plan.shift + noise * generator.normal()
        z = z + 0.3 * generator.normal(size=self.items)
        correct = z > 0
        log_prob = -np.log1p(np.exp(-1.5 * z))
        wrong = (self.labels + 1) % len(CLASSES)
        folder = self.directory / "runs" / run_id
        folder.mkdir(parents=True)
        diverged = seed in plan.diverged
        score = {"accuracy": float(correct.mean()), "macro_recall": float(correct.mean())}
        score["log_loss"] = float(-log_prob.mean())
        if not diverged:
            pd.DataFrame(
                {
                    "item_id": [f"item-{index:05d}" for index in range(self.items)],
                    "split": "test",
                    "label": self.labels,
                    "prediction": np.where(correct, self.labels, wrong),
                    "log_prob": log_prob,
                    "logits": list(self.logits(log_prob)),
                }
            ).sample(frac=1, random_state=seed).to_parquet(folder / "predictions.parquet")
        if plan.early is not None and not diverged:
            self.early(folder, plan, seed)
        steps = [0, 20, 40, 60, 80, 100]
        final = score["accuracy"]
        frozen = "feature" in plan.strategy
        record = {
            "format": 1,
            "run_id": run_id,
            "status": "diverged" if diverged else "done",
            "reason": "the training loss became NaN at step 31" if diverged else None,
            "purpose": "replicate",
            "source": plan.source,
            "source_id": None if plan.source == "none" else "5" * 64,
            "target": "digits",
            "shots": shots,
            "fraction": None,
            "backbone": "test_resnet",
            "head": "linear",
            "strategy": plan.strategy,
            "init": "random" if plan.source == "none" else "source",
            "seed": seed,
            "settings": {"optimizer.lr": 0.003},
            "lr": 0.003,
            "budget_steps": 100,
            "batch_size": 32,
            "image_size": 32,
            "classes": CLASSES,
            "n_train": shots * len(CLASSES),
            "n_pool": 100 * len(CLASSES),
            "n_validation": 179,
            "n_test": self.items,
            "metric": "accuracy",
            "metrics": {
                "validation": score,
                "test": None if diverged else score,
                "train": {"accuracy": min(1.0, final + 0.12), "macro_recall": 0.9, "log_loss": 0.1},
            },
            "curve": [
                {
                    "step": step,
                    "train_loss": 2.0 * np.exp(-step / 40),
                    "validation_accuracy": 0.2
                    + (final - 0.2) * (1 - np.exp(-step / 25))
                    + 0.01 * generator.normal(),
                    "validation_log_loss": 1.0,
                }
                for step in steps
            ],
            "cost": {
                "fit_seconds": 1.5 + 0.1 * generator.random() - 0.9 * frozen,
                "total_seconds": 2.4 - 0.9 * frozen,
                "peak_memory_bytes": 412_000_000,
                "parameters": 483_000,
                "trainable_parameters": 325 if frozen else 483_000,
                "multiply_adds_per_image": 2_900_000,
                "training_multiply_adds": 100 * 32 * 2_900_000 * (1 if frozen else 3),
            },
            "baselines": {
                "majority": {"accuracy": 0.2, "macro_recall": 0.2},
                "logistic_regression": {"accuracy": 0.71 + 0.001 * seed, "macro_recall": 0.7},
                "knn": {"accuracy": 0.66 + 0.001 * seed, "macro_recall": 0.66},
            },
            "split_sha256": f"{seed:064d}",
            "test_ids_sha256": TEST_IDS,
            "data_fingerprint": "d" * 64,
            "preprocessing_sha256": "p" * 64,
            "validation_labels": {"count": 179, "assumption": shots < 10},
            "environment": {"transferlab": "0.1.0", "torch": "2.13.0", "hardware": "2 cores"},
            **plan.run,
        }
        (folder / "run.json").write_text(json.dumps(record))


FAMILY = [
    SCRATCH,
    Plan("fine_tune from glyphs", shift=0.45),
    Plan(
        "feature_extraction from glyphs",
        strategy="feature_extraction",
        shift=-0.6,
        control="frozen random weights",
    ),
    Plan("fine_tune from noise", source="noise", shift=0.09),
    Plan(
        "feature_extraction from noise",
        source="noise",
        strategy="feature_extraction",
        shift=-1.4,
        control="frozen random weights",
    ),
    Plan("frozen random weights", "none", "feature_extraction", "control", shift=-0.6),
]


@pytest.fixture
def synthetic(tmp_path: Path) -> Callable[..., Synthetic]:
    """Makes writers of synthetic studies under the test's own folder."""

    def make(name: str = "digits", **options: Any) -> Synthetic:
        return Synthetic(tmp_path / name, **options)

    make.Plan, make.SCRATCH, make.FAMILY = Plan, SCRATCH, FAMILY  # type: ignore[attr-defined]
    return make
