"""What a recipe does to every parameter at every optimiser step, and its JSON file.

A trace keeps one number per parameter and step for each field (``lr``, ``momentum``,
``weight_decay``), or null while the optimizer leaves the parameter alone: it is in no parameter
group, or it needs no gradient. Parameters that are treated alike throughout share a group, and a
field is a list of runs ``[value, steps]``.
"""

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

FIELDS = ("lr", "momentum", "weight_decay")
Row = tuple[float | None, ...]


class Tracer:
    """Reads the rates off an optimizer's groups just before each of its steps."""

    def __init__(self, model: nn.Module) -> None:
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.rows: dict[str, list[Row]] = {name: [] for name in self.names.values()}

    def watch(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.register_step_pre_hook(lambda opt, _args, _kwargs: self.read(opt.param_groups))

    def read(
        self, groups: Iterable[Mapping[str, Any]], no_decay: frozenset[int] = frozenset()
    ) -> None:
        """Add one step. ``no_decay``: ids of parameters exempt from their group's decay."""
        now: dict[str, Row] = {}
        for group in groups:
            for parameter in group["params"]:
                name = self.names[id(parameter)]
                if name in now:
                    raise RuntimeError(f"{name} is in two parameter groups.")
                decay = 0.0 if id(parameter) in no_decay else float(group.get("weight_decay", 0.0))
                if parameter.requires_grad:
                    now[name] = (float(group["lr"]), momentum(group), decay)
        for name, rows in self.rows.items():
            rows.append(now.get(name, (None,) * len(FIELDS)))

    def groups(self) -> list[dict[str, Any]]:
        alike: dict[tuple[Row, ...], list[str]] = {}
        for name, rows in self.rows.items():
            alike.setdefault(tuple(rows), []).append(name)
        return [
            {"parameters": names}
            | {field: runs([row[i] for row in rows]) for i, field in enumerate(FIELDS)}
            for rows, names in alike.items()
        ]


def momentum(group: Mapping[str, Any]) -> float:
    """Adam's first beta, or SGD's momentum."""
    return float(group["betas"][0] if "betas" in group else group.get("momentum", 0.0))


def runs(values: Iterable[float | None]) -> list[list[float | int | None]]:
    """Run-length code: 1, 1, 2 becomes [[1, 2], [2, 1]]."""
    coded: list[list[Any]] = []
    for value in values:
        if coded and coded[-1][0] == value:
            coded[-1][1] += 1
        else:
            coded.append([value, 1])
    return coded


def expand(trace: Mapping[str, Any], field: str = "lr") -> dict[str, list[float | None]]:
    """Return, for each parameter, the field's value at every step (None: left alone)."""
    return {
        name: [value for value, count in group[field] for _ in range(count)]
        for group in trace["groups"]
        for name in group["parameters"]
    }


def write(
    folder: Path, recipe: str, header: Mapping[str, Any], groups: list[dict[str, Any]]
) -> Path:
    """Write ``<recipe>.json``: the header indented, one line a group."""
    peer = header["peer"]
    full = {
        "format": 1,
        "recipe": recipe,
        **header,
        "peer": {"name": peer, "version": version(peer)},
        "torch": version("torch"),
    }
    head = json.dumps(full, indent=2)[:-2]
    lines = ",\n".join("    " + json.dumps(group) for group in groups)
    path = folder / f"{recipe}.json"
    path.write_text(f'{head},\n  "groups": [\n{lines}\n  ]\n}}\n', encoding="utf-8")
    return path
