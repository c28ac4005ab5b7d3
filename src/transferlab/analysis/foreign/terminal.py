"""The judgement on a foreign table for a terminal: at most 100 columns, readable without colour."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from transferlab.analysis.foreign.judging import ForeignJudgement
from transferlab.analysis.formats import Unit, interval, p_value, points
from transferlab.analysis.gains import GLYPHS
from transferlab.analysis.terminal import STYLES, WIDTH
from transferlab.analysis.terms import WORDS
from transferlab.analysis.words import summary
from transferlab.records import Record

MOST_ROWS = 40
"""Verdicts up to which all are shown; beyond it those alone that are not undecided."""


def show_table(judgement: ForeignJudgement, console: Console | None = None) -> None:
    """Print verdicts, what all targets say together, what was left out, and where the report is."""
    console = console or Console()
    if not console.is_terminal:
        console.width = WIDTH  # a pipe or a log file has no width of its own
    narrow = min(console.width, WIDTH)
    shown, hidden = _shown(judgement.verdicts)
    if shown:
        console.print(verdict_table(judgement, shown), width=narrow)
    if hidden:
        line = f"{summary(judgement.verdicts)} The undecided ones are in the report alone."
        console.print(escape(line), highlight=False, soft_wrap=True)
    for note in sorted({_note(verdict) for verdict in judgement.verdicts} - {""}):
        console.print(f"  {escape(note)}", width=narrow, highlight=False)
    if judgement.across:
        console.print(across_table(judgement), width=narrow)
        if not any(record["tested"] for record in judgement.across):
            console.print("  Too few targets to test anything over them.", highlight=False)
    for line in judgement.notices:
        console.print(escape(line), highlight=False, soft_wrap=True)
    console.print(f"Report: {escape(str(judgement.report))}", highlight=False, soft_wrap=True)


def verdict_table(judgement: ForeignJudgement, verdicts: Sequence[Record]) -> Table:
    """Verdict, source, strategy, target, gain, interval and p of every comparison."""
    unit = judgement.options.unit
    table = _table(f"{judgement.name}: gain over scratch{_in(unit)}")
    table.add_column("verdict", min_width=11)
    for column in ("source", "strategy", "target"):
        table.add_column(column, overflow="fold", min_width=6)
    for column in ("gain", "95 % interval", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    previous = None
    for verdict in verdicts:
        if previous not in (None, verdict["target"]):
            table.add_row()
        previous = verdict["target"]
        table.add_row(
            _word(verdict["verdict"]),
            *(Text(str(verdict[key])) for key in ("source", "strategy", "target")),
            points(verdict["delta"], unit=unit),
            interval(*(verdict["ci95"] or (None, None)), unit=unit),
            p_value(verdict["p_sign_holm"]),
        )
    return table


def across_table(judgement: ForeignJudgement) -> Table:
    """Mean, interval, middle half, worse targets and p of every arm over its targets."""
    unit = judgement.options.unit
    table = _table(f"Across targets: mean gain over scratch{_in(unit)}")
    table.add_column("verdict", min_width=11)
    for column in ("source", "strategy"):
        table.add_column(column, overflow="fold", min_width=6)
    for column in ("mean", "95 % interval", "middle half", "worse on", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    for record in judgement.across:
        table.add_row(
            _word(record["verdict"]) if record["tested"] else Text("not tested"),
            *(Text(str(record[key])) for key in ("source", "strategy")),
            points(record["mean"], unit=unit),
            interval(*(record["ci95"] or (None, None)), unit=unit),
            points(record["iqm"], unit=unit),
            f"{record['worse']}/{record['n_targets']}",
            p_value(record["p_holm"]),
        )
    return table


def _shown(verdicts: Sequence[Record]) -> tuple[list[Record], int]:
    if len(verdicts) <= MOST_ROWS:
        return list(verdicts), 0
    decided = [verdict for verdict in verdicts if verdict["verdict"] != "inconclusive"]
    return decided, len(verdicts) - len(decided)


def _table(title: str) -> Table:
    return Table(
        title=Text(title), title_justify="left", title_style="bold", box=None, pad_edge=False
    )


def _in(unit: Unit) -> str:
    return f", in {unit.noun}" if unit.noun else ""


def _word(kind: str) -> Text:
    return Text(f"{GLYPHS[kind]} {WORDS[kind]}", style=STYLES.get(kind, ""))


def _note(verdict: Record) -> str:
    """A reason that holds for a row, said once under the table."""
    if not verdict["reason"] or verdict["verdict"] in ("positive", "negative", "equivalent"):
        return ""
    rows = f"{WORDS[verdict['verdict']]}, {verdict['reason'].replace('_', ' ')}"
    return f"{rows}: {verdict['reason_words']}."
