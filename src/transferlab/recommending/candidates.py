"""Candidates from a command line: sources and backbones, each composed as a run would be."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override, QuotedString
from omegaconf import DictConfig, OmegaConf, open_dict

from transferlab.checks import check
from transferlab.composing import KNOWN, explain, parse
from transferlab.errors import UserError, nearest
from transferlab.source_parts import expand_parts
from transferlab.study.declaration import override

GROUPS = ("source", "backbone")
PREFIX = "candidates."


@dataclass(frozen=True)
class Candidate:
    """One source under one backbone.

    Attributes:
        name: for tables, different from that of every other candidate.
        source: its overrides, the choice of source first.
        backbone: likewise; empty where all candidates share the command line's.
        cfg: of a run that starts from it, checked.
    """

    name: str
    source: tuple[str, ...]
    backbone: tuple[str, ...]
    cfg: DictConfig


@dataclass(frozen=True)
class Choice:
    """One value of ``candidates.source`` or ``candidates.backbone``, as overrides."""

    name: str
    overrides: tuple[str, ...]


def compose_candidates(
    arguments: Sequence[str], folders: Sequence[Path], known: Sequence[str]
) -> tuple[tuple[str, ...], list[Candidate]]:
    """Read a command line's candidates, sources times backbones.

    Args:
        arguments: overrides of the command line.
        folders: of configuration groups, our own first.
        known: keys that exist, for errors.

    Returns:
        the overrides that all candidates share, and the candidates.

    Raises:
        UserError: no candidate, one that is unknown, or a configuration that is wrong.
    """
    shared, axes = _split(parse(list(arguments)))
    with _composing(folders, list(known)) as composer:
        sources = [_source(value, folders) for value in _sources(axes, shared, composer)]
        backbones = [_backbone(value, folders) for value in axes.get("backbone", [])]
        _refuse_twice(shared, axes)
        found = []
        for backbone in backbones or [Choice("", ())]:
            for source in sources:
                name = f"{source.name} on {backbone.name}" if len(backbones) > 1 else source.name
                cfg = composer.run((*shared, *backbone.overrides, *source.overrides))
                found.append(Candidate(name, source.overrides, backbone.overrides, cfg))
    names = [candidate.name for candidate in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"candidates: {twice} stands there twice.")
    return shared, found


def _split(overrides: Sequence[Override]) -> tuple[tuple[str, ...], dict[str, list[Any]]]:
    """Part what makes candidates from what they share."""
    shared: list[str] = []
    axes: dict[str, list[Any]] = {}
    for one in overrides:
        key = one.get_key_element().lstrip("+")
        if not key.startswith(PREFIX):
            if one.is_sweep_override():
                raise UserError(
                    f"{one.input_line}: recommend compares sources and backbones alone. Write "
                    "candidates.source=[A,B] or candidates.backbone=[A,B]."
                )
            shared.append(str(one.input_line))
            continue
        group = key.removeprefix(PREFIX)
        if group not in GROUPS:
            raise UserError(f"unknown key {key!r} ({nearest(key, [PREFIX + g for g in GROUPS])}).")
        value = list(one.sweep_iterator()) if one.is_sweep_override() else _plain(one.value())
        axes[group] = [_plain(v) for v in value] if isinstance(value, list) else [value]
        if not axes[group]:
            raise UserError(f"{key} is an empty list: give at least one {group}.")
    return tuple(shared), axes


def _plain(value: Any) -> Any:
    """Turn what Hydra's grammar parsed into plain values."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(part) for key, part in value.items()}
    return value


def _sources(
    axes: Mapping[str, list[Any]], shared: Sequence[str], composer: "_Composer"
) -> list[Any]:
    """Return the sources that are given, or that the command line or a study chose."""
    if "source" in axes:
        return axes["source"]
    if any(text.lstrip("+").startswith("source=") for text in shared):
        return [None]
    if any(text.lstrip("+").startswith("experiment=") for text in shared):
        study = composer.declared(shared).study
        arms: Any = OmegaConf.to_container(study.arms, resolve=True) if study is not None else {}
        declared = arms.get("source")
        if declared and not _are_overrides(declared):
            values = declared if isinstance(declared, list) else [declared]
            return [value for value in values if value != "none"]
    raise UserError(
        "there is no candidate. Add candidates.source=[A,B], with names of sources such as glyphs, "
        "noise or published, or files of weights."
    )


def _are_overrides(declared: Any) -> bool:
    return isinstance(declared, list) and all("=" in str(value) for value in declared)


def _refuse_twice(shared: Sequence[str], axes: Mapping[str, Any]) -> None:
    for group in axes:
        given = [text for text in shared if text.lstrip("+").startswith(f"{group}=")]
        if given:
            raise UserError(f"{given[0]} and candidates.{group}: give one of the two.")


def _source(value: Any, folders: Sequence[Path]) -> Choice:
    """Read a source: a name, ``{name: options}``, or a path to weights."""
    if value is None:
        return Choice("source", ())
    if isinstance(value, str) and value not in _choices("source", folders):
        if Path(value).expanduser().exists():
            name = Path(value).stem if Path(value).is_file() else Path(value).name
            return Choice(name, ("source=checkpoint", override("source.path", value)))
        raise UserError(
            f"candidates.source: {value!r} is no source and no file "
            f"({nearest(value, _choices('source', folders))})."
        )
    choice = _choice("source", value, folders)
    if choice.overrides[0] == "source=none":
        raise UserError(
            "candidates.source: none is no source. A random network is what all others are "
            "compared with; leave it out."
        )
    return choice


def _backbone(value: Any, folders: Sequence[Path]) -> Choice:
    """Read a backbone: a name of conf/backbone or of timm, or ``{name: options}``."""
    if isinstance(value, str) and value not in _choices("backbone", folders):
        return Choice(value, ("backbone=timm", override("backbone.name", value)))
    return _choice("backbone", value, folders)


def _choice(group: str, value: Any, folders: Sequence[Path]) -> Choice:
    options: Any = {}
    if isinstance(value, Mapping) and len(value) == 1:
        ((value, options),) = value.items()
    known = _choices(group, folders)
    if not isinstance(value, str) or not isinstance(options, Mapping | None):
        raise UserError(
            f"candidates.{group}: {value!r} is no name. Write names, or {{NAME: {{KEY: VALUE}}}} "
            "for a choice with options of its own."
        )
    if value not in known:
        raise UserError(f"candidates.{group}: no such choice {value!r} ({nearest(value, known)}).")
    own = [(f"{group}.{key}", v) for key, v in _flat(options or {}, "")]
    told = ", ".join(f"{key.removeprefix(f'{group}.')}={v}" for key, v in own)
    name = f"{value} ({told})" if told else value
    return Choice(name, (f"{group}={value}", *(override(key, v) for key, v in own)))


def _flat(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _choices(group: str, folders: Sequence[Path]) -> list[str]:
    """List the choices of a group; those with an underscore are parts of others."""
    names = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
    return sorted(name for name in names if not name.startswith("_"))


class _Composer:
    """Compose configurations over some folders, as ``transferlab run`` would.

    Args:
        folders: of configuration groups, our own first.
        known: keys that exist, for errors.
    """

    def __init__(self, folders: Sequence[Path], known: list[str]) -> None:
        more = ",".join(f"'file://{folder.absolute()}'" for folder in folders[1:])
        self._path = [f"hydra.searchpath=[{more}]"] if more else []
        self._known = known

    def declared(self, overrides: Sequence[str]) -> DictConfig:
        """Compose what is declared, a study included, and check none of it."""
        try:
            return hydra_compose("run", overrides=[*self._path, *overrides])
        except KNOWN as error:
            raise explain(error, self._known) from error
        except AssertionError as error:  # OmegaConf's, for a key below a node that is null
            deep = [text for text in overrides if text.partition("=")[0].count(".") > 1]
            raise UserError(
                f"{', '.join(deep)}: there is no such node under one of the candidates. Give it to "
                "those that have it: candidates.source=[{NAME: {KEY: VALUE}}]."
            ) from error

    def run(self, overrides: Sequence[str]) -> DictConfig:
        """Compose and check the configuration of a run."""
        cfg = self.declared(overrides)
        try:
            expand_parts(cfg, GlobalHydra.instance().config_loader(), self._path)
        except KNOWN as error:
            raise explain(error, self._known) from error
        with open_dict(cfg):
            cfg.study = None
        check(cfg)
        return cfg


@contextmanager
def _composing(folders: Sequence[Path], known: list[str]) -> Iterator[_Composer]:
    with initialize_config_dir(str(folders[0].absolute()), version_base="1.3"):
        yield _Composer(folders, known)
