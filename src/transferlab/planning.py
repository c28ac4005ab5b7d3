"""What a run is about, before it trains: its data, its source, its identity."""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf, open_dict

from transferlab.backbones.timm import Preprocessing, create_backbone, resolve_preprocessing
from transferlab.backbones.weights import (
    StateDict,
    load_weights,
    published_weights,
    weights_sha256,
)
from transferlab.building import build
from transferlab.cache import cache_folder
from transferlab.datasets.cache import ImageSpec
from transferlab.datasets.grouping import resolve_groups
from transferlab.datasets.policy import ImagePolicy
from transferlab.datasets.splits import Splits, make_splits, read_splits, write_splits
from transferlab.datasets.store import ImageStore, open_store
from transferlab.datasets.subsets import draw_subset
from transferlab.errors import UserError
from transferlab.randomness import derive_seed
from transferlab.records import FORMAT, sha256, sha256_record

Positions = NDArray[np.int64]
PRETRAIN_KEYS = ("budget", "batch_size", "seed", "optimizer", "scheduler", "augmentation")
SPLIT_SETTINGS = ("test", "validation", "max_validation", "split_seed", "group_by", "duplicates")


@dataclass(frozen=True)
class Data:
    """A dataset, decoded for one backbone and split.

    Attributes:
        store: the images and labels.
        splits: positions of train, validation and test.
        groups: (N,) group of every image, or None.
        preprocessing: the backbone's input.
    """

    store: ImageStore
    splits: Splits
    groups: NDArray[np.int64] | None
    preprocessing: Preprocessing

    def subset(self, shots: int | None, fraction: float | None, seed: int) -> Positions:
        """Return the replicate's training items, nested over sizes for one seed."""
        if shots is None and fraction is None:
            return self.splits.train
        return draw_subset(
            self.store.labels, self.splits.train, self.groups,
            shots=shots, fraction=fraction, seed=derive_seed(seed, "subset"),
            classes=self.store.classes,
        )  # fmt: skip


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
    size = resolve_preprocessing(cfg.backbone.name, cfg.backbone.image_size, cfg.backbone.crop_pct)
    _check_backbone(cfg.backbone.name, _arguments(cfg), size.size)
    data = open_data(cfg.target, cfg.backbone)
    train = data.subset(cfg.target.shots, cfg.target.fraction, cfg.seed)
    with open_dict(cfg):
        cfg.budget.steps = _steps(cfg, len(train))
        if cfg.strategy.init == "random":
            cfg.source.kind, cfg.source.name = "none", "none"
        if cfg.source.kind == "dataset":
            cfg.source.pretrain.budget.steps = plan_source(cfg).cfg.budget.steps
    identity = _identity(cfg, data)
    run_id = sha256_record(identity)[:16]
    folder = cache_folder() if cfg.purpose == "source" else Path(cfg.output_dir)
    return Plan(cfg, run_id, identity, data, train, (folder / "runs" / run_id).absolute())


def data_name(node: DictConfig) -> str:
    """Return what a dataset is called: its ``name``, else the last part of its root or path."""
    if node.name:
        return str(node.name)
    path = node.root or (node.dataset or {}).get("path")
    return Path(str(path)).stem if path else "data"


def open_data(node: DictConfig, backbone: DictConfig) -> Data:
    """Decode and split a dataset once per process; other processes read the same files."""
    preprocessing = resolve_preprocessing(backbone.name, backbone.image_size, backbone.crop_pct)
    wanted = OmegaConf.to_container(node, resolve=True)
    assert isinstance(wanted, dict)
    ignored = ("name", "shots", "fraction", "pretrain", "kind", "tag", "path", "classes")
    kept = {str(key): value for key, value in wanted.items() if key not in ignored}
    return _open(sha256_record(kept), _Frozen(kept), preprocessing)


class _Frozen(dict[str, Any]):
    """A dict that lru_cache takes: its equality is decided by the hash beside it."""

    def __hash__(self) -> int:  # type: ignore[override]
        return 0


@lru_cache(maxsize=8)
def _open(key: str, node: _Frozen, preprocessing: Preprocessing) -> Data:
    del key
    spec = ImageSpec(preprocessing.size, preprocessing.interpolation, preprocessing.crop_pct)
    store = open_store(
        build(OmegaConf.create(node["dataset"])),
        spec=spec,
        policy=ImagePolicy(**node["images"]),
        corruption=node["corruption"],
        corruption_seed=node["corruption_seed"],
        folder=cache_folder() / "decoded",
    )
    if len(store.classes) < 2:
        raise UserError(f"the data has one class, {store.classes[0]!r}: nothing to tell apart.")
    groups = resolve_groups(store.index, node["group_by"])
    settings = {name: node[name] for name in SPLIT_SETTINGS}
    bound = None if groups is None else sha256(groups.tobytes())  # names may change, images not
    name = sha256_record([store.fingerprint, settings, bound, FORMAT])[:24]
    path = cache_folder() / "splits" / f"{name}.npz"
    if not path.is_file():
        settings.pop("group_by")
        write_splits(path, make_splits(store.index, store.content, groups, **settings))
    return Data(store, read_splits(path), groups, preprocessing)


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
        "checkpoint": {"keep": "last", "select": "last"},
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

    return {
        "format": FORMAT,
        "source": source_identity(cfg),
        "target": data.store.fingerprint,
        "split": data.splits.sha256,
        "subset": [cfg.target.shots, cfg.target.fraction],
        "backbone": [cfg.backbone.name, plain(cfg.backbone.kwargs), vars(data.preprocessing)],
        "head": plain(cfg.head),
        "strategy": [cfg.strategy.groups, plain(cfg.strategy.callbacks)],
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
    }


def _steps(cfg: DictConfig, images: int) -> int:
    steps, epochs = cfg.budget.steps, cfg.budget.epochs
    if epochs is not None:
        return max(math.ceil(float(epochs) * images / int(cfg.batch_size)), 1)
    count: int = steps
    return count


@lru_cache(maxsize=32)
def _check_backbone(name: str, kwargs: tuple[tuple[str, Any], ...], size: int) -> None:
    """Build the backbone once without memory, so that a bad one fails before data is read."""
    with torch.device("meta"):
        create_backbone(name, dict(kwargs), size)
