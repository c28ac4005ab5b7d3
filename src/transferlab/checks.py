"""Everything about a configuration that can be wrong before any data is read."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from transferlab.building import build, check_nodes
from transferlab.cache import cache_folder
from transferlab.choices import CHOICES
from transferlab.composing import require_no_secrets
from transferlab.config import RunConfig
from transferlab.energy import require_meter
from transferlab.errors import UserError, nearest
from transferlab.machine import check_machine
from transferlab.source_checks import check_roots, check_source
from transferlab.targets import require_allowed

Bound = tuple[float, float, bool]
BOUNDS: dict[str, Bound] = {  # key: low, high, low itself allowed
    "batch_size": (1, 1e7, True),
    "budget.steps": (1, 1e10, True),
    "budget.epochs": (0, 1e6, False),
    "seed": (0, 2**62, True),
    "target.shots": (1, 1e9, True),
    "target.fraction": (0, 1, False),
    "optimizer.lr": (0, 1e6, False),
    "trainer.devices": (1, 1024, True),
    "trainer.num_nodes": (1, 10_000, True),
    "trainer.validations": (1, 1e6, True),
    "trainer.log_every": (1, 1e9, True),
    "trainer.threads": (1, 4096, True),
    "trainer.workers": (0, 1024, True),
    "trainer.gradient_clip": (0, 1e9, False),
    "trainer.accumulate": (1, 1e7, True),
    "trainer.watts": (0, 1e5, False),
    "trainer.pue": (1, 10, True),
    "trainer.carbon_intensity": (0, 1e4, True),
    "checkpoint.every_steps": (1, 1e10, True),
    "checkpoint.every_minutes": (0, 1e6, False),
    "source.pretrain.budget.steps": (1, 1e10, True),
    "source.pretrain.budget.epochs": (0, 1e6, False),
    "source.pretrain.batch_size": (1, 1e7, True),
    "study.seeds": (2, 10_000, True),
    "study.tune.seeds": (1, 1000, True),
    "study.tune.trials": (2, 10_000, True),
    "study.tune.batch": (1, 1000, True),
    "study.tune.extend": (0, 10, True),
    "study.tune.shots": (1, 1e9, True),
    "study.verdict.margin": (0, 1, False),
    "study.verdict.alpha": (0, 0.5, False),
}
for _data in ("source", "target"):
    BOUNDS |= {
        f"{_data}.test": (0, 1, False),
        f"{_data}.validation": (0, 1, False),
        f"{_data}.max_validation": (1, 1e9, True),
    }
SHARES = ("target.test", "target.validation", "source.test", "source.validation")
PRECISIONS = ("auto", "32-true", "bf16-mixed", "bf16-true", "16-mixed", "64-true")
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check(cfg: DictConfig) -> None:
    """Check a composed configuration whole.

    Raises:
        UserError: names the key, what came in, what is near and what to do.
    """
    _check_complete(cfg)
    require_no_secrets(_leaves(OmegaConf.to_container(cfg, resolve=True)))
    require_allowed(cfg)  # before anything looks at what a name leads to
    for stray, known in _strays(cfg, RunConfig, ""):
        raise UserError(f"unknown key {stray!r} ({nearest(stray.rpartition('.')[2], known)}).")
    check_values(cfg)
    _check_consistent(cfg)
    check_nodes(_in_steps(cfg))
    _check_optimizer(cfg)
    for name, node in cfg.strategy.callbacks.items():
        _check_built(f"strategy.callbacks.{name}", node)
    for name, node in (cfg.tracker or {}).items():
        _check_built(f"tracker.{name}", node)
    _check_scheduler(cfg)


def _in_steps(cfg: DictConfig) -> DictConfig:
    """Return a copy in which a stand-in takes the place of steps that the data will settle."""
    cfg = cfg.copy()
    for key in ("budget", "source.pretrain.budget"):
        budget = OmegaConf.select(cfg, key)
        if budget is not None and budget.epochs is not None:
            budget.steps = 1
    return cfg


def check_output(folder: Path) -> None:
    """Raise a UserError unless files can be made in the output folder and in the cache."""
    _check_writable(folder, f"output_dir={folder}", "output_dir")
    cache = cache_folder()
    _check_writable(cache, f"the cache {cache}", "TRANSFERLAB_CACHE")


def _check_writable(folder: Path, what: str, key: str) -> None:
    probe = folder / f".writable-{os.getpid()}"  # others may look at the same moment
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"1")  # an empty file fits on a full disk
        probe.unlink()
    except OSError as error:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
        raise UserError(
            f"{what} can't be written ({error.strerror}). Set {key} to a folder of yours."
        ) from error


def check_values(cfg: DictConfig) -> None:
    """Check choices and bounds, of those keys that are there."""
    _check_choices(cfg)
    _check_bounds(cfg)


def _check_complete(cfg: DictConfig) -> None:
    missing = sorted(_open_keys(OmegaConf.to_container(cfg, resolve=False)))
    if missing:
        raise UserError(
            f"{', '.join(missing)} must be set: add {missing[0]}=VALUE to the command line."
        )
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except (InterpolationResolutionError, OmegaConfBaseException) as error:
        raise UserError(f"{str(error).splitlines()[0]} (in the configuration).") from error


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """List dotted keys and their values."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        here = f"{path}.{key}".lstrip(".")
        if isinstance(value, dict | list):
            yield from _leaves(value, here)
        else:
            yield here, value


def _open_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """List keys left at ``???``; OmegaConf's own list fails where an interpolation names one."""
    if isinstance(node, dict):
        for key, value in node.items():
            if value == "???":
                yield f"{prefix}{key}"
            yield from _open_keys(value, f"{prefix}{key}.")


def _check_choices(cfg: DictConfig) -> None:
    valid = CHOICES | {
        "trainer.precision": PRECISIONS,
        "trainer.accelerator": ACCELERATORS,
    }
    for key, options in valid.items():
        value = OmegaConf.select(cfg, key)
        if value is not None and value not in options:
            raise UserError(f"{key}={value}: no such choice ({nearest(value, options)}).")


def _check_bounds(cfg: DictConfig) -> None:
    for key, (low, high, closed) in BOUNDS.items():
        value = OmegaConf.select(cfg, key)
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise UserError(f"{key}={value!r}: expected a number.")
        if not (low <= value <= high) or (value == low and not closed) or _whole(key, value):
            span = f"{'[' if closed else '('}{low:g}, {high:g}{')' if key in SHARES else ']'}"
            raise UserError(f"{key}={value}: expected a value in {span}.")


def _whole(key: str, value: float) -> bool:
    """Say whether a share takes everything, which leaves nothing for the other splits."""
    return key in SHARES and value >= 1


def _check_consistent(cfg: DictConfig) -> None:
    budget = cfg.budget
    if (budget.steps is None) == (budget.epochs is None):
        raise UserError(
            f"budget.steps={budget.steps} and budget.epochs={budget.epochs}: give one of the two, "
            "for example budget.epochs=10 budget.steps=null."
        )
    if cfg.target.shots is not None and cfg.target.fraction is not None:
        raise UserError(
            f"target.shots={cfg.target.shots} and target.fraction={cfg.target.fraction}: "
            "give one of the two."
        )
    if cfg.target.corruption != "none" and cfg.purpose != "source":
        raise UserError(
            f"target.corruption={cfg.target.corruption}: a corrupted dataset is a source; "
            f"write source={cfg.target.name} source.corruption={cfg.target.corruption}."
        )
    _check_kept(cfg)
    check_machine(cfg)
    require_meter(cfg.trainer.energy)
    if not PLAIN_NAME.fullmatch(str(cfg.name)):
        raise UserError(
            f"name={cfg.name!r}: expected letters, digits, '.', '_' and '-'; it names a folder."
        )
    check_source(cfg)
    check_roots(cfg)
    _check_parts(cfg)


def _check_kept(cfg: DictConfig) -> None:
    keep, select = cfg.checkpoint.keep, cfg.checkpoint.select
    if keep in ("best", "last") and keep != select:
        raise UserError(
            f"checkpoint.keep={keep} with checkpoint.select={select}: the weights that were tested "
            f"would be lost. Set checkpoint.select={keep} too, or checkpoint.keep=all."
        )


def _check_parts(cfg: DictConfig) -> None:
    """Check choices and bounds of every part of a composed source."""
    parts = cfg.source.parts if isinstance(cfg.source.parts, DictConfig) else {}
    for name, part in parts.items():
        try:
            check_values(OmegaConf.create({"source": part}))
        except UserError as error:
            told = str(error).replace("source.", f"source.parts.{name}.", 1)
            raise UserError(told) from error


def _strays(node: DictConfig, kind: type, path: str) -> Iterator[tuple[str, list[str]]]:
    """Yield keys that a ``+`` put where nothing reads them, with those that are read there."""
    known = [field.name for field in fields(kind)]
    types = get_type_hints(kind)
    for key in map(str, node):
        if key not in known:
            yield path + key, known
            continue
        inner = [t for t in (types[key], *get_args(types[key])) if is_dataclass(t)]
        if inner and isinstance(node[key], DictConfig):
            yield from _strays(node[key], inner[0], f"{path}{key}.")  # type: ignore[arg-type]


def _check_optimizer(cfg: DictConfig) -> None:
    """Build the optimizer over one number: torch checks its settings only then."""
    optimizer = build(cfg.optimizer)
    try:
        optimizer([torch.nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        raise UserError(f"optimizer: {reason}. Change optimizer.* to values it takes.") from error


def _check_built(key: str, node: Any) -> None:
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise UserError(f"{key}: expected a node with _target_, got {node!r}.")
    build(node)


def brings_curves(cfg: DictConfig) -> bool:
    """Say whether a strategy brings rates over time of its own, in the scheduler's place."""
    built = [build(node) for node in cfg.strategy.callbacks.values()]
    return any(c.brings_curves() for c in built if hasattr(c, "brings_curves"))


def _check_scheduler(cfg: DictConfig) -> None:
    default = cfg.scheduler is None or str(cfg.scheduler.get("_target_")).endswith("auto_schedule")
    if not default and brings_curves(cfg):
        raise UserError(
            f"scheduler={cfg.scheduler.get('_target_')}: strategy={cfg.strategy.name} brings rates "
            "over time of its own, so this scheduler would not be used. Leave out scheduler."
        )
