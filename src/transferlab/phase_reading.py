"""Reading the schedule language: plain containers, as a YAML gives them, into checked phases."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_args

from transferlab.errors import UserError, nearest
from transferlab.schedule import Dropout, Norms, Phase, Plateau, Selector, Span, Warmup


def parse_phases(nodes: Mapping[str, Any]) -> list[Phase]:
    """Read phases.

    Args:
        nodes: name -> settings, see :class:`transferlab.schedule.Phase`.

    Raises:
        UserError: an unknown key or choice, a value of the wrong kind, or settings that
            contradict each other.
    """
    if not nodes:
        raise UserError("phases: none given. Name at least one, for example {all: {train: [all]}}.")
    if not isinstance(nodes, Mapping):
        raise UserError(f"phases={nodes!r}: expected a mapping, {{name: {{train: [head]}}}}.")
    return [
        _phase(str(name), {} if node is None else node, f"phases.{name}")
        for name, node in nodes.items()
    ]


def parse_span(node: Any, where: str) -> Span:
    """Read a length from a mapping with one of steps, epochs and share.

    Raises:
        UserError: another key, not exactly one of them, or no positive number.
    """
    if isinstance(node, Span):
        node = {f.name: getattr(node, f.name) for f in fields(Span)}
    if not isinstance(node, Mapping):
        raise UserError(f"{where}={node!r}: expected {{steps: N}}, {{epochs: N}} or {{share: X}}.")
    given = _known(node, [f.name for f in fields(Span)], where)
    given = {unit: value for unit, value in given.items() if value is not None}
    if len(given) != 1:
        raise UserError(
            f"{where}={given or 'nothing'}: give one of steps, epochs and share, "
            "for example {share: 0.5}."
        )
    ((unit, value),) = given.items()
    number = _number(value, f"{where}.{unit}")
    if number <= 0 or (unit == "share" and number > 1) or (unit == "steps" and number % 1):
        kinds = {"steps": "a whole number above 0", "share": "a number in (0, 1]"}
        raise UserError(f"{where}.{unit}={value}: expected {kinds.get(unit, 'a number above 0')}.")
    return Span(**{unit: int(number) if unit == "steps" else number})  # type: ignore[arg-type]


def _phase(name: str, node: Any, where: str) -> Phase:
    values = _known(node, [f.name for f in fields(Phase) if f.name != "name"], where)
    values = {key: value for key, value in values.items() if value is not None}
    values["train"] = _selectors(values.get("train", ()), f"{where}.train")
    values["rates"] = _rates(values.get("rates", {}), f"{where}.rates")
    for key in ("lr", "scale", "decay", "spread"):
        if key in values:
            mapping = key == "lr" and isinstance(values[key], Mapping)
            values[key] = (_rates if mapping else _number)(values[key], f"{where}.{key}")
    for key, choices in (("norms", get_args(Norms)), ("dropout", get_args(Dropout))):
        if values.get(key, "follow") not in choices:
            raise UserError(f"{where}.{key}={values[key]} ({nearest(values[key], choices)}).")
    for key, read in (
        ("until", _end),
        ("warmup", _warmup),
        ("curve", _curve),
        ("momentum", _curve),
    ):
        if key in values:
            values[key] = read(values[key], f"{where}.{key}")
    if not isinstance(values.get("rebase", False), bool):
        raise UserError(f"{where}.rebase={values['rebase']!r}: expected true or false.")
    phase = Phase(name, **values)
    _check_ranges(phase, where)
    return phase


def _check_ranges(phase: Phase, where: str) -> None:
    absolute = phase.lr if isinstance(phase.lr, Mapping) else {"": phase.lr}
    ranges: list[tuple[str, float | None, float, float]] = [
        ("decay", phase.decay, 0, 1), ("spread", phase.spread, 1, math.inf),
        ("scale", phase.scale, 0, math.inf),
        *((f"lr.{key}".rstrip("."), rate, 0, math.inf) for key, rate in absolute.items()),
    ]  # fmt: skip
    for key, value, low, high in ranges:
        if value is not None and not low < value < high:
            raise UserError(f"{where}.{key}={value}: expected a number in ({low}, {high}).")
    for selector, factor in phase.rates.items():
        if factor < 0:
            raise UserError(f"{where}.rates.{selector}={factor}: expected 0 or more.")


def _selectors(node: Any, where: str) -> tuple[Selector, ...]:
    listed = [node] if isinstance(node, str | int) else node
    if not isinstance(listed, Sequence):
        raise UserError(f"{where}={node!r}: expected a list of parts, for example [head].")
    for selector in listed:
        if isinstance(selector, bool) or not isinstance(selector, str | int):
            raise UserError(
                f"{where}: {selector!r} names no part; expected a name, a pattern or a number."
            )
    return tuple(listed)


def _rates(node: Any, where: str) -> dict[Selector, float]:
    if not isinstance(node, Mapping):
        raise UserError(f"{where}={node!r}: expected a mapping, for example {{body: 0.1}}.")
    _selectors(list(node), where)
    return {selector: _number(value, f"{where}.{selector}") for selector, value in node.items()}


def _warmup(node: Any, where: str) -> Warmup:
    given = _known(node, [f.name for f in fields(Warmup)], where)
    values = {key: value for key, value in given.items() if value is not None}
    for key in ("length", "every"):
        if key in values:
            values[key] = parse_span(values[key], f"{where}.{key}")
    for key in ("start", "factor"):
        if key in values:
            values[key] = _number(values[key], f"{where}.{key}")
    warmup = Warmup(**values)
    _check_warmup(warmup, where)
    return warmup


def _check_warmup(warmup: Warmup, where: str) -> None:
    start, factor = warmup.start, warmup.factor
    if not 0 <= start < 1:
        raise UserError(f"{where}.start={start}: expected a number in [0, 1).")
    if factor is None and warmup.every is not None:
        raise UserError(f"{where}.every belongs to a rise by a factor. Add factor, or use length.")
    if factor is not None and warmup.length is not None:
        raise UserError(f"{where}: length is of a linear rise, factor of one in steps. Drop one.")
    if factor is not None and (factor <= 1 or start == 0):
        raise UserError(
            f"{where}: start={start} and factor={factor} never reach the full rate. Give a start "
            "in (0, 1) and a factor above 1, for example {start: 0.1, factor: 2}."
        )


def _curve(node: Any, where: str) -> Any:
    if not callable(node):
        raise UserError(
            f"{where}={node!r}: expected an object that maps progress to a number, for example "
            "{_target_: transferlab.curves.OneCycle}."
        )
    return node


def _end(node: Any, where: str) -> Span | Plateau:
    if not isinstance(node, Mapping) or "plateau" not in node:
        return parse_span(node, where)
    _known(node, ["plateau"], where)
    where = f"{where}.plateau"
    plateau = {} if node["plateau"] is None else node["plateau"]
    values = _known(plateau, [f.name for f in fields(Plateau)], where)
    if values.get("at_most") is not None:
        values["at_most"] = parse_span(values["at_most"], f"{where}.at_most")
    patience = values.get("patience", 1)
    if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
        raise UserError(f"{where}.patience={patience!r}: expected a whole number, at least 1.")
    values["min_delta"] = _number(values.get("min_delta", 0.0), f"{where}.min_delta")
    if values["min_delta"] < 0:
        raise UserError(f"{where}.min_delta={values['min_delta']}: expected 0 or more.")
    if not isinstance(values.get("restore", True), bool):
        raise UserError(f"{where}.restore={values['restore']!r}: expected true or false.")
    return Plateau(**values)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{where}={value!r}: expected a number.")
    return float(value)


def _known(node: Any, names: Sequence[str], where: str) -> dict[str, Any]:
    if not isinstance(node, Mapping):
        raise UserError(f"{where}={node!r}: expected a mapping of {', '.join(names)}.")
    for key in node:
        if key not in names:
            raise UserError(f"unknown key {where}.{key} ({nearest(key, names)}).")
    return {str(key): value for key, value in node.items()}
