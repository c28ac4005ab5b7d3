"""What a run is about, before it trains: its data, its source, its identity."""

import errno
import math
from dataclasses import dataclass, field
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
from transferlab.errors import FullDiskError, UserError
from transferlab.further_tests import FurtherTest, further_tests
from transferlab.integrity import near_duplicates
from transferlab.machine import ranks
from transferlab.precision import settle_precision
from transferlab.provenance import check_licences, licences, provenance
from transferlab.records import FORMAT, sha256_record
from transferlab.split_data import Data, Positions, data_name, open_data
from transferlab.targets import require_allowed

PRETRAIN_KEYS = ("budget", "batch_size", "seed", "optimizer", "scheduler", "augmentation")

STARTS = ("pretrain", "dataset", "parts", "leave_out")
"""What a source run, which starts from random weights, has no use for in a source of its own."""


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
        further: test sets besides the target's own, by name.
        notes: what else the record says of data and terms.
    """

    cfg: DictConfig
    run_id: str
    identity: dict[str, Any]
    data: Data
    train: Positions
    directory: Path
    further: dict[str, FurtherTest] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


SOURCES = 32
"""Planned source runs that a process keeps: a study plans the same few for each of its runs."""
_sources: dict[tuple[str, Path], Plan] = {}


def plan_run(cfg: DictConfig) -> Plan:
    """Open the data, settle the budget in steps and name the run.

    Raises:
        UserError: anything about data, weights, sizes or licences that the user can mend.
    """
    require_allowed(cfg)  # also where it is read back from a run's config.yaml
    try:
        return _plan_run(cfg)
    except FullDiskError as error:  # nothing has trained yet
        raise UserError(str(error)) from error
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        raise UserError(
            f"{error.filename or cache_folder()} can't be read or written ({error.strerror}). "
            "Set TRANSFERLAB_CACHE to a folder of yours."
        ) from error


def _plan_run(cfg: DictConfig) -> Plan:
    cfg = cfg.copy()
    check_model(cfg)
    data = open_data(cfg.target, cfg.backbone)
    train = data.subset(cfg.target.shots, cfg.target.fraction, cfg.seed)
    with open_dict(cfg):
        cfg.trainer.precision = settle_precision(cfg)
        cfg.budget.steps = _steps(cfg, len(train))
        if cfg.strategy.init == "random":
            cfg.source.kind, cfg.source.name = "none", "none"
        if brings_curves(cfg):
            cfg.scheduler = None
        source = plan_source(cfg) if cfg.source.kind == "dataset" else None
        if source is not None:
            cfg.source.pretrain.budget.steps = source.cfg.budget.steps
    further = further_tests(cfg.target, cfg.backbone, data)
    notes = _notes(cfg, data, train, None if source is None else source.data, further)
    identity = _identity(cfg, data, further)
    run_id = sha256_record(identity)[:16]
    folder = cache_folder() if cfg.purpose == "source" else Path(cfg.output_dir)
    directory = (folder / "runs" / run_id).absolute()
    return Plan(cfg, run_id, identity, data, train, directory, further, notes)


def plan_source(cfg: DictConfig) -> Plan:
    """Plan the run behind ``source=<dataset>``, once for its data as the process knows them.

    Raises:
        UserError: as :func:`plan_run`; it names the options of the source.
    """
    whole = _source_settings(cfg)
    key = sha256_record(whole), cache_folder()
    try:
        if key not in _sources or not _is_of_these_data(_sources[key]):
            planned = plan_run(OmegaConf.create(whole))
            while len(_sources) >= SOURCES:
                _sources.pop(next(iter(_sources)))
            _sources[key] = planned
    except UserError as error:
        raise UserError(str(error).replace("`target.", "`source.")) from error
    return _sources[key]


def _is_of_these_data(plan: Plan) -> bool:
    both = open_data(plan.cfg.target, plan.cfg.backbone), plan.data
    return len({(data.store.fingerprint, data.splits.sha256) for data in both}) == 1


def source_config(cfg: DictConfig) -> DictConfig:
    """Return the configuration of the pretraining run behind ``source=<dataset>``.

    It is a run like any other: random weights, all layers trained on the source dataset under
    the source's own budget, optimizer and seed, with the backbone and preprocessing of the arm.
    """
    found: DictConfig = OmegaConf.create(_source_settings(cfg))
    return found


def _source_settings(cfg: DictConfig) -> dict[str, Any]:
    whole: Any = OmegaConf.to_container(cfg, resolve=False)
    own, pretrain = whole["source"], whole["source"]["pretrain"]
    whole["target"] = {key: own.get(key, value) for key, value in whole["target"].items()} | {
        "name": data_name(cfg.source),
        "shots": None,
        "fraction": None,
        "near_duplicates": "ignore",  # nothing is claimed from a source run's own test split
        "report_by": [],
        "also_test": {},
    }
    if own.get("parts"):
        whole["target"] |= {key: own[key] for key in ("parts", "join", "leave_out")}
    whole |= {key: pretrain[key] for key in PRETRAIN_KEYS}
    whole["views"] = None  # a choice for what adapts; pretraining sees every image anew
    whole |= {
        "source": own | {"kind": "none", "name": "none"} | dict.fromkeys(STARTS),
        "strategy": {"name": "pretrain", "init": "random", "groups": "stages", "callbacks": {}},
        "head": {"_target_": "transferlab.heads.linear.LinearHead"},
        "loss": {
            "_target_": "transferlab.losses.CrossEntropy",
            "label_smoothing": 0.0,
            "class_weights": None,
        },
        "purpose": "source",
        "settings": {},
        "forgetting": False,
        "study": None,
        "request": None,
        "checkpoint": whole["checkpoint"] | {"keep": "last", "select": "last"},
        # the arm's own: timed with its batches, and not anew with those of pretraining
        "trainer": whole["trainer"] | {"prune_below": None, "precision": settle_precision(cfg)},
    }
    settings: dict[str, Any] = whole
    return settings


def _notes(
    cfg: DictConfig,
    data: Data,
    train: Positions,
    source: Data | None,
    further: dict[str, FurtherTest],
) -> dict[str, Any]:
    """Return what is recorded of data and terms; refuses what may not be used.

    Raises:
        UserError: a licence that is not allowed, or too many test images that were learned from.
    """
    terms = licences(cfg, {name: test.licence for name, test in further.items()})
    check_licences(terms, cfg.allowed_licences)
    sets = {name: (test.store, test.positions) for name, test in further.items()}
    copies = near_duplicates(data, source, sets, cfg.target.near_duplicates)
    notes = {"licences": terms, "near_duplicates": copies}
    return notes | provenance(cfg, data, train, source)


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


def _identity(cfg: DictConfig, data: Data, further: dict[str, FurtherTest]) -> dict[str, Any]:
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
        "world_size": ranks(cfg.trainer),
        "select": [cfg.checkpoint.select]
        + ([cfg.metric.name, cfg.trainer.validations] if cfg.checkpoint.select == "best" else []),
        "opens_test": cfg.purpose != "tune",
        "seed": cfg.seed,
    } | _execution(cfg)
    if further and cfg.purpose != "tune":  # a run that lacks a set's scores is not this one
        found["also_test"] = {name: test.fingerprint for name, test in sorted(further.items())}
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
    """Return the ways of training that change a result, where they are not the plain one.

    Micro-batches have norm statistics and dropout of their own; a compiled step rounds otherwise.
    """
    plain = {"accumulate": 1, "compile": False, "sync_norms": False}
    found = {key: cfg.trainer[key] for key, value in plain.items() if cfg.trainer[key] != value}
    if cfg.views is not None and cfg.augmentation:
        found["views"] = cfg.views
    if cfg.trainer.prune_below is not None:  # with none yet too: what comes after rests on it
        found["prune_below"] = [cfg.trainer.validations, list(cfg.trainer.prune_below)]
    return found


def _steps(cfg: DictConfig, images: int) -> int:
    steps, epochs = cfg.budget.steps, cfg.budget.epochs
    if epochs is not None:
        steps = max(math.ceil(float(epochs) * images / int(cfg.batch_size)), 1)
    count: int = steps
    for callback in _callbacks(cfg).values():
        count = callback.steps(count)
    return count
