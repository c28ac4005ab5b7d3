"""What can be wrong with where weights come from, before any data or weights are read."""

import inspect
from dataclasses import fields
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from transferlab.building import locate
from transferlab.config import DataConfig
from transferlab.errors import UserError

OF_THE_WHOLE = ("name", "duplicates", "licence")
"""What a composed source itself says of its data; all else belongs to its parts."""


def check_source(cfg: DictConfig) -> None:
    """Check the source of a composed configuration, and what is asked about it.

    Raises:
        UserError: names the key, what came in and what to do.
    """
    source = cfg.source
    if source.kind == "checkpoint" and source.path is None:
        raise UserError("source.path must be set: add source.path=FILE to the command line.")
    if source.kind == "checkpoint" and not Path(str(source.path)).expanduser().exists():
        raise UserError(
            f"source.path={source.path} does not exist. Give a weights file or a run's directory."
        )
    if source.kind != "none":
        _check_composed(source)
    if source.kind == "dataset":
        _check_dataset(source)
    if cfg.forgetting:
        _check_forgetting(cfg)


def check_roots(cfg: DictConfig) -> None:
    """Ask for the root of a dataset that reads one, before its class is looked at."""
    nodes = {"target": cfg.target, "source": cfg.source}
    if cfg.source.kind == "dataset":
        nodes |= {f"source.parts.{name}": part for name, part in (cfg.source.parts or {}).items()}
    for side, whole in nodes.items():
        node = whole.dataset
        if node is not None and "root" in node and node.root is None and _needs_root(node):
            raise UserError(f"{side}.root must be set: add {side}.root=DIR to the command line.")


def _needs_root(node: DictConfig) -> bool:
    built = locate("dataset", str(node["_target_"]))
    root = inspect.signature(built).parameters.get("root")
    return root is not None and root.default is root.empty


def _check_dataset(source: DictConfig) -> None:
    if source.dataset is None and not source.parts:
        raise UserError(
            "source.parts must be set: add source.parts=[NAME,NAME] to the command line. For a "
            "source of one dataset start its YAML from conf/source/image_folder.yaml."
        )
    if source.pretrain is None:
        raise UserError(
            f"source={source.name} says nothing of its pretraining. Start its YAML from "
            "conf/source/image_folder.yaml."
        )
    steps, epochs = source.pretrain.budget.steps, source.pretrain.budget.epochs
    if (steps is None) == (epochs is None):
        raise UserError(
            f"source.pretrain.budget.steps={steps} and .epochs={epochs}: give one of the two."
        )
    if source.parts and epochs is not None:
        raise UserError(
            f"source.pretrain.budget.epochs={epochs}: a composed source takes as many steps "
            "whatever its parts. Set source.pretrain.budget.steps, and epochs to null."
        )


def _check_composed(source: DictConfig) -> None:
    """Check that options of composed sources and of single datasets are not mixed."""
    if not source.parts or source.dataset is not None:
        for key, default in (("parts", None), ("join", "disjoint"), ("leave_out", None)):
            if source[key] != default:
                raise UserError(
                    f"source.{key}={source[key]} is for source=composed, and source={source.name} "
                    "is not: choose that, or leave it out."
                )
        return
    if not isinstance(source.parts, DictConfig):
        raise UserError(f"source.parts={source.parts}: names that were not resolved to datasets.")
    plain = OmegaConf.structured(DataConfig)
    for key in (field.name for field in fields(DataConfig)):
        if key not in OF_THE_WHOLE and source[key] != plain[key]:
            first = next(iter(source.parts))
            raise UserError(
                f"source.{key}={source[key]}: every part of a composed source has its own. Write "
                f"source.parts={{{first!s}: {{{key}: {source[key]}}}, ...}}."
            )


def _check_forgetting(cfg: DictConfig) -> None:
    source = cfg.source
    if source.kind == "none" or cfg.strategy.init == "random":
        why = "source=none" if source.kind == "none" else f"strategy={cfg.strategy.name}"
        raise UserError(
            f"forgetting=true: with {why} a run starts from random weights and has no source to "
            "forget. Choose a source such as source=glyphs, or leave forgetting out."
        )
    if source.kind == "dataset":
        return
    folder = Path(str(source.path)).expanduser()
    if source.kind == "published" or not folder.is_dir():
        what = "published weights" if source.kind == "published" else f"{source.path}"
        raise UserError(
            f"forgetting=true: {what} bring no source data and no source head to score. Give a "
            "dataset as source, or source=checkpoint source.path=DIR with the directory of a run."
        )
