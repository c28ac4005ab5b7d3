"""What a run is about, before it trains: its data, its source, its identity."""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from transferlab.assembling import check_model
from transferlab.backbones.opening import backbone_identity
from transferlab.backbones.weights import (
    StateDict,
    load_weights,
    published_weights,
    weights_sha256,
)
from transferlab.building import build
from transferlab.cache import cache_folder
from transferlab.checks import brings_curves
from transferlab.errors import UserError
from transferlab.records import FORMAT, sha256_record
from transferlab.split_data import Data, Positions, data_name, open_data

PRETRAIN_KEYS = ("budget", "batch_size", "seed", "optimizer", "scheduler", "augmentation")


@dataclass(frozen=True)
class Plan:
    """One run, known before it trains.

    Attributes:
        cfg: the resolved configuration; ``budget.steps`` is set.
        run_id: hash of what defines the run.
        identity: what was hashed.
        data: the target.
        train: positions of the training subset.
        directory: where the run lies.
    """

    cfg: DictConfig
    run_id: str
    identity: dict[str, Any]
    data: Data
    train: Positions
    directory: Path


def plan_run(cfg: DictConfig) -> Plan:
    """Open the data, settle the budget in steps and name the run.

    Raises:
        UserError: anything about data, weights or sizes that the user can mend.
    """
    cfg = cfg.copy()
    check_model(cfg)
    data = open_data(cfg.target, cfg.backbone)
    train = data.subset(cfg.target.shots, cfg.target.fraction, cfg.seed)
    with open_dict(cfg):
        cfg.budget.steps = _steps(cfg, len(train))
        if cfg.strategy.init == "random":
            cfg.source.kind, cfg.source.name = "none", "none"
        if brings_curves(cfg):
            cfg.scheduler = None
        if cfg.source.kind == "dataset":
            cfg.source.pretrain.budget.steps = plan_source(cfg).cfg.budget.steps
    identity = _identity(cfg, data)
    run_id = sha256_record(identity)[:16]
    folder = cache_folder() if cfg.purpose == "source" else Path(cfg.output_dir)
    return Plan(cfg, run_id, identity, data, train, (folder / "runs" / run_id).absolute())


def plan_source(cfg: DictConfig) -> Plan:
    """Plan the run behind ``source=<dataset>``; errors name the options of the source."""
    try:
        return plan_run(source_config(cfg))
    except UserError as error:
        raise UserError(str(error).replace("`target.", "`source.")) from error


def source_config(cfg: DictConfig) -> DictConfig:
    """Return the configuration of the pretraining run behind ``source=<dataset>``.

    It is a run like any other: random weights, all layers trained on the source dataset under
    the source's own budget, optimizer and seed, with the backbone and preprocessing of the arm.
    """
    whole: Any = OmegaConf.to_container(cfg, resolve=False)
    own, pretrain = whole["source"], whole["source"]["pretrain"]
    whole["target"] = {key: own.get(key, value) for key, value in whole["target"].items()} | {
        "name": data_name(cfg.source),
        "shots": None,
        "fraction": None,
    }
    whole |= {key: pretrain[key] for key in PRETRAIN_KEYS}
    whole |= {
        "source": own | {"kind": "none", "name": "none", "pretrain": None, "dataset": None},
        "strategy": {"name": "pretrain", "init": "random", "groups": "stages", "callbacks": {}},
        "head": {"_target_": "transferlab.heads.linear.LinearHead"},
        "loss": {
            "_target_": "transferlab.losses.CrossEntropy",
            "label_smoothing": 0.0,
            "class_weights": None,
        },
        "purpose": "source",
        "settings": {},
        "study": None,
        "request": None,
        "checkpoint": whole["checkpoint"] | {"keep": "last", "select": "last"},
    }
    config: DictConfig = OmegaConf.create(whole)
    return config


def source_identity(cfg: DictConfig) -> str | None:
    """Return the id of the source run, or the SHA-256 of the weights, or None for random ones."""
    if cfg.source.kind == "none" or cfg.strategy.init == "random":
        return None
    if cfg.source.kind == "dataset":
        return plan_source(cfg).run_id
    return external_weights(cfg)[1]


def external_weights(cfg: DictConfig) -> tuple[StateDict, str]:
    """Return published or checkpoint weights with their SHA-256, read once per process."""
    source = cfg.source
    return _external(source.kind, cfg.backbone.name, source.tag, source.path, _arguments(cfg))


def _arguments(cfg: DictConfig) -> tuple[tuple[str, Any], ...]:
    """Return the backbone's own arguments in a form that lru_cache takes."""
    kwargs: Any = OmegaConf.to_container(cfg.backbone.kwargs, resolve=True)
    return tuple(sorted((k, tuple(v) if isinstance(v, list) else v) for k, v in kwargs.items()))


@lru_cache(maxsize=4)
def _external(
    kind: str, name: str, tag: str | None, path: str | None, kwargs: tuple[tuple[str, Any], ...]
) -> tuple[StateDict, str]:
    if kind == "published":
        state = published_weights(name, tag, path, dict(kwargs))
    else:
        state = load_weights(Path(path or ""))
    return state, weights_sha256(state)


def _identity(cfg: DictConfig, data: Data) -> dict[str, Any]:
    def plain(node: Any) -> Any:
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node

    found = {
        "format": FORMAT,
        "source": source_identity(cfg),
        "target": data.store.fingerprint,
        "split": data.splits.sha256,
        "subset": [cfg.target.shots, cfg.target.fraction],
        "backbone": backbone_identity(cfg.backbone),
        "head": plain(cfg.head),
        "augmentation": plain(cfg.augmentation),
        "loss": plain(cfg.loss),
        "optimizer": plain(cfg.optimizer),
        "scheduler": plain(cfg.scheduler),
        "steps": cfg.budget.steps,
        "batch_size": cfg.batch_size,
        "precision": cfg.trainer.precision,
        "gradient_clip": cfg.trainer.gradient_clip,
        "world_size": cfg.trainer.devices,
        "select": [cfg.checkpoint.select]
        + ([cfg.metric.name, cfg.trainer.validations] if cfg.checkpoint.select == "best" else []),
        "opens_test": cfg.purpose != "tune",
        "seed": cfg.seed,
    } | _execution(cfg)
    settings = plain(cfg.strategy.callbacks)
    callbacks = _callbacks(cfg)
    if any(callback.chooses for callback in callbacks.values()):
        found["metric"] = [cfg.metric.name, cfg.trainer.validations]
    own = {name: callback.identity(found) for name, callback in callbacks.items()}
    settings |= {name: value for name, value in own.items() if value is not None}
    return found | {"strategy": [cfg.strategy.groups, settings]}


def _callbacks(cfg: DictConfig) -> dict[str, Any]:
    """Build a strategy's callbacks, which have a say in the budget and in the identity."""
    return {str(name): build(node) for name, node in cfg.strategy.callbacks.items()}


def _execution(cfg: DictConfig) -> dict[str, Any]:
    """Return the ways of computing that change a result, where they are not the plain one.

    Micro-batches have norm statistics and dropout of their own; a compiled step rounds otherwise.
    """
    plain = {"accumulate": 1, "compile": False, "sync_norms": False}
    return {key: cfg.trainer[key] for key, value in plain.items() if cfg.trainer[key] != value}


def _steps(cfg: DictConfig, images: int) -> int:
    steps, epochs = cfg.budget.steps, cfg.budget.epochs
    if epochs is not None:
        steps = max(math.ceil(float(epochs) * images / int(cfg.batch_size)), 1)
    count: int = steps
    for callback in _callbacks(cfg).values():
        count = callback.steps(count)
    return count
