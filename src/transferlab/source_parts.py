"""The parts of a composed source: from names of sources to datasets, each with its options."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from transferlab.composing import KNOWN, explain, keys
from transferlab.config import DataConfig
from transferlab.errors import UserError, nearest

OPTIONS = tuple(field.name for field in fields(DataConfig))
"""What a part may say of its dataset; the rest of a source belongs to the composed one."""


def expand_parts(cfg: DictConfig, loader: ConfigLoader, overrides: Iterable[str] = ()) -> None:
    """Replace the names in ``source.parts`` by datasets, in place; other sources stay as they are.

    Afterwards ``source.parts`` maps each part's name to all options of its dataset, and
    ``source.name`` says what the source is made of. Parts that are expanded already stay.

    Args:
        cfg: a composed configuration.
        loader: finds the YAMLs that the names mean.
        overrides: of Hydra's own node; the search path among them is where users' YAMLs lie.

    Raises:
        UserError: no names, one name, a name twice or unknown, or an option no dataset has.
    """
    if cfg.source.kind == "none" or cfg.source.parts is None:
        return
    path = tuple(text for text in overrides if text.startswith("hydra.searchpath"))
    source: Any = OmegaConf.to_container(cfg.source, resolve=False)
    wanted = _wanted(source["parts"])
    parts = {name: _part(name, node, loader, path) for name, node in sorted(wanted.items())}
    left = [name for name in parts if name != cfg.source.leave_out]
    if len(left) == len(parts) and cfg.source.leave_out is not None:
        raise UserError(
            f"source.leave_out={cfg.source.leave_out}: no such part "
            f"({nearest(cfg.source.leave_out, parts)})."
        )
    with open_dict(cfg):
        cfg.source.parts = parts
        if cfg.source.name is None or len(left) == 1:
            cfg.source.name = "+".join(left)  # a single part is what it would be alone
        elif cfg.source.leave_out is not None:
            cfg.source.name = f"{cfg.source.name} without {cfg.source.leave_out}"


def part_names(cfg: DictConfig) -> list[str]:
    """Return the names of a composed source's parts, in order; of any other source none."""
    parts = cfg.source.get("parts")
    return [str(name) for name in parts] if parts and cfg.source.kind == "dataset" else []


def _wanted(declared: Any) -> dict[str, dict[str, Any]]:
    """Return name -> options, from either way of writing parts."""
    if not isinstance(declared, list | Mapping):
        raise UserError(
            f"source.parts={declared!r}: expected names of sources, as in "
            "source.parts=[glyphs,noise], or a mapping from names to options."
        )
    names = [str(name) for name in declared]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"source.parts={names}: {twice[0]} stands there twice. To take one source twice, name "
            f"the parts: source.parts={{a: {{source: {twice[0]}}}, b: {{source: {twice[0]}}}}}."
        )
    if len(names) < 2:
        one = f"; for one alone write source={names[0]}" if names else ""
        raise UserError(f"source.parts={names}: a composed source has two parts or more{one}.")
    given = declared if isinstance(declared, Mapping) else dict.fromkeys(names)
    for name, node in given.items():
        if node is not None and not isinstance(node, Mapping):
            raise UserError(f"source.parts.{name}={node!r}: expected a mapping of options.")
        if "/" in str(name):
            raise UserError(f"source.parts.{name}: a part's name has no '/', which classes use.")
    return {str(name): dict(node or {}) for name, node in given.items()}


def _part(
    name: str, options: dict[str, Any], loader: ConfigLoader, path: tuple[str, ...]
) -> DictConfig:
    """Return all options of one part: those of the source it starts from, and what differs."""
    complete = "_target_" in (options.get("dataset") or {})
    start = str(options.pop("source", name))
    base = OmegaConf.structured(DataConfig) if complete else _source(start, loader, path).copy()
    for key in options:
        if key not in OPTIONS:
            raise UserError(
                f"source.parts.{name}.{key}: no option of a dataset ({nearest(key, OPTIONS)}); "
                "budget, optimizer and seed belong to the whole: source.pretrain."
            )
    try:
        merged = OmegaConf.merge(base, OmegaConf.create(options))
    except KNOWN as error:
        told = explain(error, keys(OmegaConf.structured(DataConfig)))
        raise UserError(f"source.parts.{name}: {told}") from error
    assert isinstance(merged, DictConfig)
    return merged


@lru_cache(maxsize=32)
def _source(name: str, loader: ConfigLoader, path: tuple[str, ...]) -> DictConfig:
    """Compose ``source=NAME`` and return its dataset's options."""
    try:
        cfg = loader.load_configuration(
            "run", [*path, f"source={name}"], RunMode.RUN, from_shell=False
        )
    except KNOWN as error:
        raise explain(error, []) from error
    if cfg.source.kind != "dataset" or cfg.source.dataset is None:
        raise UserError(
            f"source.parts: source={name} is no dataset. A composed source is made of sources "
            "that are, such as glyphs or image_folder."
        )
    own: Any = OmegaConf.to_container(cfg.source, resolve=False)
    options = OmegaConf.create({key: own[key] for key in OPTIONS})
    merged = OmegaConf.merge(OmegaConf.structured(DataConfig), options)
    assert isinstance(merged, DictConfig)
    return merged
