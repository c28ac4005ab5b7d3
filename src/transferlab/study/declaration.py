"""What a study declares: cells, arms and seeds, before anything runs."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from hydra.core.override_parser.types import Override, Quote, QuotedString
from omegaconf import DictConfig, ListConfig, OmegaConf

from transferlab.errors import UserError

SCRATCH = ("source=none", "strategy=scratch")
TUNING_SEED = 10_000
"""Seeds of tuning runs start here, so that none of them ever enters a verdict."""
ARM_GROUPS = ("source", "strategy")
"""What sets arms apart when it is swept; all else is shared by the arms of a cell, scratch too."""
PLAIN_TEXT = re.compile("[A-Za-z_][A-Za-z0-9_.-]*")
READ_AS_VALUES = ("null", "true", "false", "inf", "nan")


@dataclass(frozen=True)
class Arm:
    """All runs that differ only in their replicate.

    Attributes:
        id: within its cell.
        overrides: on top of the cell's.
        role: ``transfer``, ``scratch``, ``control`` or ``ablation``.
        control: id of the arm's frozen random-init control, or None.
        of: id of the arm that an ablation takes something from.
        without: the part of the composed source that it takes.
    """

    id: str
    overrides: tuple[str, ...]
    role: str = "transfer"
    control: str | None = None
    of: str | None = None
    without: str | None = None


@dataclass(frozen=True)
class Cell:
    """One family of comparisons: a target, its size, a backbone.

    Attributes:
        id: the values that set it apart.
        overrides: its own.
        values: the same as a mapping.
        own_best: budgets in steps that each arm may choose among; empty at equal steps.
        twin: the cell at equal steps that this one is beside.
    """

    id: str
    overrides: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    own_best: tuple[int, ...] = ()
    twin: str | None = None


@dataclass(frozen=True)
class Declaration:
    """Cells x arms x seeds, and the overrides that all share.

    Attributes:
        repeated: ids of cells that were asked for more than once; each is made once.
    """

    shared: tuple[str, ...]
    cells: tuple[Cell, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    tuned: bool
    repeated: tuple[str, ...] = ()


def declare(cfg: DictConfig, overrides: Sequence[Override]) -> Declaration:
    """Read a study, or make one of a plain grid.

    Values swept on the command line join the study: what belongs to a source or a strategy makes
    arms, ``seed`` makes replicates, all else makes cells.

    Args:
        cfg: the master configuration.
        overrides: of the command line, parsed.
    """
    shared = tuple(o.input_line for o in overrides if not o.is_sweep_override() and o.input_line)
    sweeps = {o.get_key_element(): _values(o) for o in overrides if o.is_sweep_override()}
    study = cfg.study
    seeds = _seeds(cfg, sweeps.pop("seed", None))
    of_arms = {k: v for k, v in sweeps.items() if k.partition(".")[0] in ARM_GROUPS}
    of_cells = {k: v for k, v in sweeps.items() if k not in of_arms}
    if study is not None:
        of_cells = plain(study.cells) | of_cells
        arms = _arms(plain(study.arms), of_arms)
    else:
        arms = _crossed_arms(of_arms)
    asked = _cells(of_cells)
    cells = tuple({cell.overrides: cell for cell in asked}.values())
    if study is not None and study.get("own_best"):
        cells = tuple(beside for cell in cells for beside in (cell, _own_best(cell, study)))
    return Declaration(
        shared=shared,
        cells=cells,
        arms=arms,
        seeds=seeds,
        tuned=study is not None and study.tune is not None and _tries(study.tune),
        repeated=tuple(cell.id for cell in cells if asked.count(cell) > 1),
    )


def override(key: str, value: Any) -> str:
    """Write one override in Hydra's grammar; its parser gives back the same value and type."""
    return f"{key}={_written(value)}"


def _written(value: Any) -> str:
    if isinstance(value, str):
        plain = PLAIN_TEXT.fullmatch(value) and value.lower() not in READ_AS_VALUES
        return value if plain else QuotedString(value, Quote.single).with_quotes()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_written(part)}" for key, part in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _tries(tune: DictConfig) -> bool:
    return bool(tune.get("grid") or tune.get("search"))


def _values(swept: Override) -> list[Any]:
    values = list(swept.sweep_iterator())
    return [value.text if isinstance(value, QuotedString) else _typed(value) for value in values]


def _typed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parsed = OmegaConf.create({"value": None})
    parsed.merge_with_dotlist([f"value={value}"])
    return parsed.value if isinstance(parsed.value, int | float | bool) else value


def plain(node: Any) -> Any:
    """Return a configuration node as plain lists and mappings, interpolations resolved."""
    if isinstance(node, DictConfig | ListConfig):
        return OmegaConf.to_container(node, resolve=True)
    return node


def _seeds(cfg: DictConfig, swept: list[Any] | None) -> tuple[int, ...]:
    if swept is not None:
        if len(set(swept)) != len(swept):
            raise UserError(f"seed={','.join(map(str, swept))}: a seed stands there twice.")
        wrong = [seed for seed in swept if not isinstance(seed, int) or seed < 0]
        if wrong:
            raise UserError(f"seed={wrong[0]}: expected whole numbers of at least 0.")
        return tuple(swept)
    return tuple(range(cfg.study.seeds)) if cfg.study is not None else (int(cfg.seed),)


def _cells(axes: dict[str, Any]) -> tuple[Cell, ...]:
    cells = []
    for values in _product(axes, "study.cells"):
        cells.append(
            Cell(
                id=", ".join(_named(key, value) for key, value in values.items()) or "all",
                overrides=tuple(override(key, value) for key, value in values.items()),
                values=values,
            )
        )
    return tuple(cells)


def _own_best(cell: Cell, study: DictConfig) -> Cell:
    """Return the cell's twin in which every arm takes the number of steps that suits it."""
    budgets = tuple(int(steps) for steps in study.own_best)
    return replace(cell, id=f"{cell.id}, own best budget", own_best=budgets, twin=cell.id)


def _named(key: str, value: Any) -> str:
    """Name a value for people: of a folder only its last part, which holds on every machine."""
    if key.endswith(".root"):
        return f"{key.removesuffix('.root')}={PurePath(str(value)).name}"
    return f"{key}={value}"


def _arms(declared: Any, swept: dict[str, Any]) -> tuple[Arm, ...]:
    """Read ``study.arms``: axes to cross, or named lists of overrides."""
    if not isinstance(declared, dict) or not declared:
        raise UserError(
            "study.arms is empty: give axes such as {source: [glyphs], strategy: [fine_tune]}, "
            "or names with lists of overrides."
        )
    named = {
        name: overrides
        for name, overrides in declared.items()
        if isinstance(overrides, list)
        and overrides
        and all(isinstance(text, str) and "=" in text for text in overrides)
    }
    if len(named) == len(declared):
        return tuple(Arm(str(name), tuple(overrides)) for name, overrides in named.items())
    if named:
        raise UserError(
            f"study.arms mixes axes with named lists of overrides ({', '.join(named)}): "
            "use one of the two forms."
        )
    return _crossed_arms(declared | swept)


def _crossed_arms(axes: dict[str, Any]) -> tuple[Arm, ...]:
    arms = []
    for values in _product(axes, "study.arms"):
        named = dict(values)
        strategy, source = named.pop("strategy", None), named.pop("source", None)
        parts = [str(strategy)] if strategy is not None else []
        parts += [f"from {source}"] if source is not None else []
        parts += [f"{key}={value}" for key, value in named.items()]
        arms.append(Arm(" ".join(parts) or "run", tuple(override(k, v) for k, v in values.items())))
    return tuple(arms)


def _product(axes: dict[str, Any], where: str) -> list[dict[str, Any]]:
    lists = {}
    for key, values in axes.items():
        lists[key] = values if isinstance(values, list) else [values]
        if not lists[key]:
            raise UserError(f"{where}.{key} is an empty list: give at least one value.")
    return [
        dict(zip(lists, combination, strict=True))
        for combination in itertools.product(*lists.values())
    ]
