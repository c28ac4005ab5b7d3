"""The record of a run: what it is, what it scored, what it cost."""

import json
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from transferlab.backbones.weights import save_weights
from transferlab.baselines import baselines
from transferlab.cache import cache_folder
from transferlab.callbacks.cost import multiply_adds_per_image
from transferlab.collectives import first_rank, from_all
from transferlab.energy import assumed_power, energy_record
from transferlab.environment import environment
from transferlab.evaluation import (
    Logits,
    calibration,
    choose_metric,
    further_scores,
    gather,
    gathered,
    ranking_scores,
    report_columns,
    sample,
    scores,
    write_predictions,
)
from transferlab.fitting import Fit, weights_notes
from transferlab.forgetting import measure_forgetting, wants_forgetting
from transferlab.further_tests import FurtherTest, serving
from transferlab.machine import ranks
from transferlab.planning import Plan, plan_source
from transferlab.records import (
    FORMAT,
    Record,
    read_json,
    sha256,
    write_json,
)
from transferlab.split_data import data_name, images_by_part
from transferlab.stats.metrics import at_chance
from transferlab.trainers import quiet

TRAIN_SAMPLE = 2000
"""Training images at the most that the final training score is measured on."""


def no_metrics() -> Record:
    """Return the scores of a run that has none."""
    return {"validation": None, "test": None, "train": None}


def header(plan: Plan) -> Record:
    """Return what is known of a run before it trains."""
    cfg, data = plan.cfg, plan.data
    test_ids = [data.store.ids[p] for p in data.splits.test]
    labels = len(data.splits.validation)
    return {
        "format": FORMAT,
        "run_id": plan.run_id,
        "status": "done",
        "reason": None,
        "purpose": cfg.purpose,
        "source": data_name(cfg.source) if cfg.source.kind != "none" else "none",
        "source_id": plan.identity["source"],
        "source_size": _source_size(plan),
        "target": data_name(cfg.target),
        "shots": cfg.target.shots,
        "fraction": cfg.target.fraction,
        "backbone": cfg.backbone.name,
        "head": str(cfg.head.get("_target_")).rpartition(".")[2],
        "strategy": "scratch" if is_scratch(plan) else cfg.strategy.name,
        "init": "random" if plan.identity["source"] is None else "source",
        "seed": cfg.seed,
        "settings": OmegaConf.to_container(cfg.settings, resolve=True),
        "lr": float(cfg.optimizer.lr),
        "budget_steps": int(cfg.budget.steps),
        "batch_size": cfg.batch_size,
        "world_size": ranks(cfg.trainer),
        "image_size": data.preprocessing.size,
        "classes": list(data.store.classes),
        "n_train": len(plan.train),
        "n_pool": len(data.splits.train),
        "n_validation": labels,
        "n_test": len(data.splits.test),
        "metric": choose_metric(cfg.metric.name, data.store.labels, len(data.store.classes)),
        "curve": [],
        "pruned": None,
        "baselines": None,
        "split_sha256": data.splits.sha256,
        "test_ids_sha256": sha256("\n".join(test_ids)),
        "data_fingerprint": data.store.fingerprint,
        "identity": plan.identity,
        "skipped_images": list(data.store.skipped),
        "preprocessing": vars(data.preprocessing),
        "preprocessing_sha256": data.preprocessing.fingerprint,
        "validation_labels": {
            "count": labels,
            "assumption": cfg.target.shots is not None and cfg.target.shots < 10,
        },
    } | plan.notes


def _source_size(plan: Plan) -> Record | None:
    """Return how large a dataset as source is, both ways: images of each part, and steps on them.

    A source run states its own; None where weights came from elsewhere.
    """
    cfg = plan.cfg
    if cfg.purpose != "source" and (
        plan.identity["source"] is None or cfg.source.kind != "dataset"
    ):
        return None
    run = plan if cfg.purpose == "source" else plan_source(cfg)
    return {
        "images": images_by_part(run.data, data_name(run.cfg.target)),
        "steps": int(run.cfg.budget.steps),
        "batch_size": int(run.cfg.batch_size),
    }


def is_scratch(plan: Plan) -> bool:
    """Say whether all layers train from random weights, whatever the strategy is called."""
    named = plan.cfg.purpose == "source"  # a pretraining run keeps its own name
    return plan.identity["source"] is None and not plan.cfg.strategy.callbacks and not named


def measure(plan: Plan, fitted: Fit) -> Record:
    """Score what was trained; the test split is opened here, once, after the weights are fixed.

    All ranks predict their shares and return the same scores; the first one alone writes.
    """
    cfg, data = plan.cfg, plan.data
    writes = first_rank()
    weights = _save_weights(plan, fitted) if writes else None
    parts = {"validation": data.splits.validation, "train": sample(plan.train, TRAIN_SAMPLE)}
    if cfg.purpose != "tune":
        if writes:
            _note_opening(plan, fitted, "test split opened")
        from_all(None)  # no rank reads the test split before that is on disk
        parts["test"] = data.splits.test
    fitted.data.predicted = list(parts.values())
    with quiet():
        outputs: Any = fitted.trainer.predict(fitted.module, datamodule=fitted.data)
    logits = {
        split: gather(gathered(batches), positions)
        for (split, positions), batches in zip(parts.items(), outputs, strict=True)
    }
    found = {
        split: scores(logits[split], data.store.labels[positions])
        | ranking_scores(logits[split], data.store.labels[positions])
        | further_scores(cfg.metric.others, logits[split], data.store.labels[positions])
        for split, positions in parts.items()
    }
    kept = {split: (parts[split], logits[split]) for split in parts if split != "train"}
    if writes:
        columns = report_columns(data.store.index, plan.notes["report_by"])
        path = plan.directory / "predictions.parquet"
        write_predictions(path, data.store, kept, data.groups, columns)
    further = _measure_further(plan, fitted) if "test" in parts else {}
    compared = writes and "test" in parts and cfg.purpose != "source"
    record: Record = {
        "metrics": no_metrics() | found | ({"also_test": further} if further else {}),
        "weights": weights,
        "selected_step": fitted.selected_step,
        "pruned": fitted.pruned,
        "resumed_at_steps": fitted.resumed,
        "trials": fitted.trials,
        "n_trials": max(len(fitted.trials), 1),  # one where nothing was compared
        "curve": fitted.history.curve,
        "calibration": calibration(kept, data.store.labels) if "test" in parts else None,
        "cost": _cost(plan, fitted),
        "environment": environment(fitted.module.device),
        "baselines": _baselines(plan) if compared else None,
        "forgetting": measure_forgetting(plan, fitted)
        if writes and wants_forgetting(cfg)
        else None,
    }
    largest = np.bincount(data.store.labels[parts["train"]]).max() / len(parts["train"])
    learned = found["train"]["accuracy"]
    if cfg.purpose != "source" and at_chance(learned, len(parts["train"]), majority=largest):
        record |= {"status": "diverged", "reason": "training accuracy is no better than chance"}
    return record


def _measure_further(plan: Plan, fitted: Fit) -> Record:
    """Score the further test sets, one after the other, with the weights that were chosen."""
    found: Record = {}
    fitted.data.release()  # their images take the target's place on the device
    for name, test in plan.further.items():
        if first_rank():
            _note_opening(plan, fitted, f"further test set {name} opened")
        from_all(None)
        data = serving(fitted.data, test)
        with quiet():
            outputs: Any = fitted.trainer.predict(fitted.module, datamodule=data)
        data.release()
        logits = gather(gathered(outputs), test.positions)
        labels = test.store.labels[test.positions]
        found[name] = (
            scores(logits, labels)
            | ranking_scores(logits, labels)
            | further_scores(plan.cfg.metric.others, logits, labels)
        )
        if first_rank():
            _write_further(plan, name, test, logits)
    return found


def _write_further(plan: Plan, name: str, test: FurtherTest, logits: Logits) -> None:
    path = plan.directory / f"predictions-{name}.parquet"
    parts = {"test": (test.positions, logits)}
    write_predictions(path, test.store, parts, test.groups, test.columns)


def _energy(plan: Plan, fitted: Fit) -> Record | None:
    cfg, cost = plan.cfg.trainer, fitted.cost
    if cfg.energy == "off":
        return None
    counted = from_all(cost.joules)  # every rank counts its own device
    device, threads = fitted.module.device.type, torch.get_num_threads()
    watts = assumed_power(device, ranks(cfg), threads, cfg.watts)
    unit = f"{threads} CPU threads" if device == "cpu" else "an accelerator"
    return energy_record(
        cost.fit_seconds,
        None if None in counted else sum(joules for joules in counted if joules is not None),
        meter=cost.meter,
        watts=watts,
        assumed=f"{watts:g} W assumed of {ranks(cfg)} x {unit}",
        pue=float(cfg.pue),
        carbon_intensity=float(cfg.carbon_intensity),
    )


def _cost(plan: Plan, fitted: Fit) -> Record:
    model = fitted.module.model
    size = fitted.data.preprocessing.size
    image = torch.zeros(1, len(fitted.data.preprocessing.mean), size, size)
    return {
        "fit_seconds": fitted.cost.fit_seconds,
        "earlier_seconds": fitted.cost.earlier_seconds,
        "peak_memory_bytes": max(from_all(fitted.cost.peak_memory_bytes)),  # of one process
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable_parameters": fitted.cost.trainable_parameters,
        "multiply_adds_per_image": multiply_adds_per_image(
            model, image.to(next(model.parameters()))
        ),
        "training_multiply_adds": sum(from_all(fitted.cost.training_multiply_adds)),
        "energy": _energy(plan, fitted),
        "source_seconds": _source_seconds(plan),
    }


def _source_seconds(plan: Plan) -> float | None:
    """Return how long the source run trained; None where weights came from elsewhere."""
    if plan.identity["source"] is None or plan.cfg.source.kind != "dataset":
        return None
    path = plan_source(plan.cfg).directory / "run.json"
    cost = read_json(path).get("cost") if path.is_file() else None
    return (cost or {}).get("fit_seconds")


def _save_weights(plan: Plan, fitted: Fit) -> Record | None:
    """Write backbone and head; return the file's name and SHA-256, None where none is kept."""
    if plan.cfg.checkpoint.keep == "none":
        return None
    path = plan.directory / "checkpoints" / f"{plan.cfg.checkpoint.select}.safetensors"
    digest = save_weights(path, fitted.module.model.state_dict(), weights_notes(plan))
    return {"file": f"checkpoints/{path.name}", "sha256": digest}


def _note_opening(plan: Plan, fitted: Fit, event: str) -> None:
    """Write down that images held back are about to be read, before they are."""
    note = {"event": event, "run_id": plan.run_id, "step": fitted.selected_step}
    line, path = json.dumps(note), plan.directory / "ledger.jsonl"
    if path.is_file() and line in path.read_text().splitlines():
        return  # an evaluation that was cut short opens it no second time
    with path.open("a") as stream:
        stream.write(line + "\n")


def _baselines(plan: Plan) -> Record:
    """Return the replicate's baselines: all arms share them, so they are computed once."""
    key = sha256("|".join([plan.data.splits.sha256, plan.data.store.fingerprint,
                           ",".join(map(str, plan.train))]))[:24]  # fmt: skip
    path = cache_folder() / "baselines" / f"{key}.json"
    try:
        found: Record = read_json(path)
    except (OSError, ValueError):  # missing, or damaged by another's crash
        found = baselines(plan.data.store, plan.train, plan.data.splits.test)
        write_json(path, found)
    return found
