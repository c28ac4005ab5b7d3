"""The verdicts as a table for a terminal: at most 100 columns, readable without colour."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from transferlab.analysis.formats import (
    count,
    interval,
    p_value,
    percent,
    points,
    ratio,
    short,
    unit_of,
)
from transferlab.analysis.gains import GLYPHS
from transferlab.analysis.judge import Judgement
from transferlab.analysis.words import word_of
from transferlab.records import Record

WIDTH = 100
STYLES = {"positive": "bold blue", "negative": "bold red", "equivalent": "green"}


def show(judgement: Judgement, console: Console | None = None) -> None:
    """Print the table of verdicts, or of runs where none were declared, and where the report is."""
    console = console or Console()
    if not console.is_terminal:
        console.width = WIDTH  # a pipe or a log file has no width of its own
    narrow = min(console.width, WIDTH)
    if judgement.declared:
        console.print(verdict_table(judgement), width=narrow)
        notes = sorted({_note(verdict) for verdict in judgement.verdicts} - {""})
        for note in [*notes, *map(_further, judgement.further)]:
            console.print(f"  {escape(note)}", width=narrow, highlight=False)
    else:
        console.print(runs_table(judgement), width=narrow)
        console.print(escape(judgement.advice), highlight=False, soft_wrap=True)
    for line in judgement.notices:
        console.print(escape(line), highlight=False, soft_wrap=True)
    console.print(f"Report: {escape(str(judgement.report))}", highlight=False, soft_wrap=True)


def verdict_table(judgement: Judgement) -> Table:
    """Verdict, source, strategy, size, gain, interval, p and cost of every comparison."""
    targets = {str(verdict["target"]) for verdict in judgement.verdicts}
    only = f" on {next(iter(targets))}" if len(targets) == 1 else ""
    nouns = {unit_of(verdict["metric"]).noun for verdict in judgement.verdicts}
    noun = f", in {next(iter(nouns))}" if len(nouns) == 1 else ""
    against = f"against {judgement.baseline}" if judgement.baseline else "over scratch"
    table = _table(f"{judgement.name}: gain {against}{only}{noun}")
    table.add_column("verdict", min_width=11)
    for column in ("source", "strategy", "size" if only else "target"):
        table.add_column(column, overflow="fold", min_width=6)
    for column in ("gain", "95 % interval", "p", "cost"):
        table.add_column(column, justify="right", no_wrap=True)
    previous = None
    for verdict in judgement.verdicts:
        if previous not in (None, verdict["cell"]):
            table.add_row()
        previous = verdict["cell"]
        table.add_row(*_cells(verdict, size_only=bool(only)))
    return table


def runs_table(judgement: Judgement) -> Table:
    """Every run's source, strategy, seed, scores and status."""
    table = _table(f"{judgement.name}: runs")
    for column in ("run", "source", "strategy", "target"):
        table.add_column(column, overflow="fold")
    for column in ("seed", "validation", "test", "status"):
        table.add_column(column, justify="right", no_wrap=True)
    for run in judgement.runs:
        metric = str(run.get("metric") or "accuracy")
        scores = [
            percent((run["metrics"].get(split) or {}).get(metric))
            for split in ("validation", "test")
        ]
        words = [short(run["run_id"]), run["source"], run["strategy"], run["target"]]
        numbers = [str(run["seed"]), *scores, run["status"]]
        table.add_row(*(escape(str(text)) for text in (*words, *numbers)))
    return table


def _table(title: str) -> Table:
    return Table(
        title=Text(title), title_justify="left", title_style="bold", box=None, pad_edge=False
    )


def _cells(verdict: Record, *, size_only: bool) -> list[str | Text]:
    low, high = verdict["ci95"] or (None, None)
    kind, unit = verdict["verdict"], unit_of(verdict["metric"])
    word = Text(f"{GLYPHS[kind]} {word_of(verdict)}", style=STYLES.get(kind, ""))
    strategy = verdict["arm"] if verdict["alike"] else verdict["strategy"]
    return [
        word,
        Text(str(verdict["source"])),
        Text(str(strategy)),
        Text(_size(verdict) if size_only else f"{verdict['target']} {_size(verdict)}"),
        points(verdict["delta"], unit=unit),
        interval(low, high, unit=unit),
        p_value(verdict["p_sign_holm"]),
        ratio((verdict["cost"] or {}).get("ratio")),
    ]


def _further(record: Record) -> str:
    """One line for a verdict that isn't about a strategy on the target's own test images."""
    named = {
        "source": f"{record['source']}, by the strategy that validation chooses",
        "part": f"{record['part']} as a part of {record['source']}, {record['arm']}",
    }
    name = named.get(record["question"], f"{record['arm']}, on {record['test_set']}")
    low, high = record["ci95"] or (None, None)
    unit = unit_of(record["metric"])
    gain = f" {points(record['delta'], unit=unit)} ({interval(low, high, unit=unit)})"
    measured = gain if record["delta"] is not None else ""
    return f"{_size(record)}: {name}: {word_of(record)}{measured}"


def _size(record: Record) -> str:
    if record.get("shots") is not None:
        return count(int(record["shots"]), "shot")
    if record.get("fraction") is not None:
        return f"{100 * record['fraction']:g} %"
    return "all"


def _note(verdict: Record) -> str:
    """A reason that holds for a row, said once under the table."""
    if not verdict["reason"] or verdict["verdict"] in ("positive", "negative", "equivalent"):
        return ""
    rows = f"{word_of(verdict)}, {verdict['reason'].replace('_', ' ')}"
    return f"{rows}: {verdict['reason_words']}."
