"""A recommendation for a terminal: at most 100 columns, readable without colour."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from transferlab.records import Record
from transferlab.scouting.target import PIXELS, RANDOM
from transferlab.transferability.scoring import SCORES

WIDTH = 100
SIDE_BY_SIDE = 4
"""Candidates whose scores are all shown; of more only the first ones."""
NOTHING = "–"
WORDS = {
    "logme": "LogME", "regularized_h_score": "H-score, regularised", "h_score": "H-score",
    "leep": "LEEP", "nce": "NCE", "n_leep": "N-LEEP", "gbc": "GBC", "parc": "PARC",
    "transrate": "TransRate", "knn_1": "1-NN", "knn_5": "5-NN", "knn_20": "20-NN",
}  # fmt: skip


def show(record: Record, path: Path, console: Console | None = None) -> None:
    """Print the ranking, every score, the gaps, the alarms, and the advice with its evidence."""
    console = console or Console()
    if not console.is_terminal:
        console.width = WIDTH
    candidates = record["candidates"]
    width = min(console.width, WIDTH)
    for title, table in (ranking(candidates), scores(candidates), gaps(candidates)):
        if table.row_count:
            console.print(Text(title, style="bold"), width=width)
            console.print(table, width=width)
            console.print()
    lines = [*_alarms(candidates), "", *_advice(record), f"All of it: {path}"]
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)


def ranking(candidates: Sequence[Record]) -> tuple[str, Table]:
    """Nearest neighbours beside those that need no source, and the alarms."""
    first = candidates[0]
    size = f"{first['n_items']} training images, {first['n_classes']} classes"
    title = f"{first['target']}, {size}: {_metric(first)}, each image left out in turn"
    table = _table()
    table.add_column("")
    table.add_column("source", overflow="fold")
    for column in ("neighbours", "random net", "raw pixels", "margin", "LogME", "z", "alarms"):
        table.add_column(column, justify="right", no_wrap=True)
    for found in candidates:
        near, logme, w1 = found["neighbours"], found["scores"]["logme"], found["alarms"]["w1"]
        shares = [_percent(near[name]) for name in ("source", RANDOM, PIXELS)]
        margin = NOTHING if w1["value"] is None else f"{100 * w1['value']:+.1f}"
        numbers = [_number(logme["value"]), _z(logme["z"])]
        fired = [name for name, alarm in found["alarms"].items() if alarm["fires"]]
        alarms = Text(" ".join(fired) or "none", style="bold red" if fired else "")
        words = (str(found["rank"]), Text(found["name"]))
        table.add_row(*words, *shares, margin, *numbers, alarms)
    return title, table


def scores(candidates: Sequence[Record]) -> tuple[str, Table]:
    """Every score of the first candidates, with its place among shuffled labels."""
    shown = candidates[:SIDE_BY_SIDE]
    title = "every score, higher is better, with its z against shuffled labels"
    table = _table()
    table.add_column("score", no_wrap=True)
    for found in shown:
        table.add_column(Text(found["name"]), justify="right", overflow="fold")
    for name in SCORES:
        row = [_score(found["scores"][name]) for found in shown]
        if any(text != NOTHING for text in row):
            table.add_row(WORDS[name], *row)
    return title, table


def gaps(candidates: Sequence[Record]) -> tuple[str, Table]:
    """How far each source's images lie from the target's, in the source's features."""
    title = "distance of the images in each source's features, which predicts no sign"
    table = _table()
    table.add_column("source", overflow="fold")
    for column in ("proxy A (0 to 2)", "Fréchet", "its floor", "MMD²", "p", "CORAL"):
        table.add_column(column, justify="right", no_wrap=True)
    for found in candidates:
        gap = found["gap"]
        if gap:
            keys = ("frechet", "frechet_floor", "mmd2")
            numbers = [f"{gap['proxy_a']:.2f}", *(_number(gap[key]) for key in keys)]
            table.add_row(
                Text(found["name"]), *numbers, f"{gap['mmd_p']:.3f}", _number(gap["coral"])
            )
    return title, table


def _alarms(candidates: Sequence[Record]) -> list[str]:
    lines = []
    for found in candidates:
        for name, alarm in found["alarms"].items():
            if alarm["fires"]:
                lines.append(f"{name} warns of {found['name']}: {alarm['why']}.")
    return lines


def _advice(record: Record) -> list[str]:
    advice: dict[str, Any] = record["advice"]
    lines = [
        record["ranked_by"],
        "",
        f"To try first, from {advice['about']}: {', '.join(advice['strategies'])} "
        f"({advice['size']} target, {advice['similarity']} source).",
        advice["freeze"],
        *(f"  - {sentence}" for sentence in advice["evidence"]),
    ]
    lines += [advice["caution"]] if advice["caution"] else []
    return [*lines, "", record["no_verdict"], f"  {record['command']}", ""]


def _table() -> Table:
    return Table(box=None, pad_edge=False)


def _metric(record: Record) -> str:
    near = record["neighbours"]
    many = "nearest neighbour" if near["k"] == 1 else f"{near['k']} nearest neighbours"
    return f"{near['metric'].replace('_', ' ')} of the {many}"


def _score(score: Record) -> str:
    if score["value"] is None:
        return NOTHING
    return f"{_number(score['value'])} ({_z(score['z'])})"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _z(value: float | None) -> str:
    return NOTHING if value is None else f"{value:+.1f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
