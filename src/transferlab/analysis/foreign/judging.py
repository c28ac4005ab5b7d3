"""From a table of results made elsewhere to judgement: read, judge, write tables and the report."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transferlab.analysis.foreign.options import Options
from transferlab.analysis.foreign.page import page_html
from transferlab.analysis.foreign.table import ForeignTable, read_table
from transferlab.analysis.foreign.verdicts import judge_rows
from transferlab.analysis.formats import csv_row
from transferlab.analysis.tables import verdicts_csv
from transferlab.analysis.words import summary
from transferlab.errors import UserError
from transferlab.records import FORMAT, Record, write_json, write_text

ACROSS_COLUMNS = (
    "source", "strategy", "arm", "verdict", "n_targets", "better", "worse", "mean", "ci95_low",
    "ci95_high", "iqm", "iqm_ci95_low", "iqm_ci95_high", "p", "p_holm", "family_m", "tested",
    "left_out", "sentence",
)  # fmt: skip


@dataclass(frozen=True)
class ForeignJudgement:
    """What a foreign table came to.

    Attributes:
        name: the table's name.
        options: how it was judged.
        verdicts: one record for each (source, strategy) pair of each target.
        across: one record for each pair over its targets; empty for a single target.
        report: the page that was written.
        notices: what was left out or looks strange, in sentences.
    """

    name: str
    options: Options
    verdicts: tuple[Record, ...]
    across: tuple[Record, ...]
    report: Path
    notices: tuple[str, ...]


def judge_table(path: Path, options: Options, out: Path | None = None) -> ForeignJudgement:
    """Judge a table of results and write verdicts, tables and report to a folder.

    The same table, with the same files of items, gives the same bytes.

    Args:
        path: CSV or Parquet with the columns source, target, strategy, seed, score, and perhaps
            n_items and items.
        options: metric, margin, level and direction.
        out: where the files go; by default ``<stem>-report`` beside the table.

    Raises:
        UserError: the table or a file of items can't be read or makes no sense, or the folder
            can't be written to or belongs to a study.
    """
    out = path.with_name(f"{path.stem}-report") if out is None else out
    if (out / "study.json").exists() or (out / "runs").exists():
        raise UserError(
            f"{out} is the folder of a study, whose verdicts are its own. Name another --out."
        )
    table = read_table(path, options)
    verdicts, across, unread = judge_rows(table, options)
    notices = (*table.notices, *unread)
    try:
        _write(out, table, options, verdicts, across, notices)
    except OSError as error:
        raise UserError(
            f"The report can't be written to {out} ({error.strerror or error}). "
            "Name a folder that is writable with --out."
        ) from error
    return ForeignJudgement(
        table.path.stem, options, tuple(verdicts), tuple(across), out / "report.html", notices
    )


def _write(
    out: Path,
    table: ForeignTable,
    options: Options,
    verdicts: Sequence[Record],
    across: Sequence[Record],
    notices: Sequence[str],
) -> None:
    record = {
        "format": FORMAT,
        "name": table.path.stem,
        "table": {"name": table.path.name, "sha256": table.sha256, "rows": len(table.rows)},
        "metric": options.metric,
        "lower_is_better": options.lower_is_better,
        "margin": options.margin,
        "alpha": options.alpha,
        "summary": summary(verdicts),
        "notices": list(notices),
        "verdicts": list(verdicts),
        "across_targets": list(across),
    }
    write_json(out / "verdicts.json", record)
    write_text(out / "verdicts.csv", verdicts_csv(verdicts))
    write_text(out / "across_targets.csv", across_csv(across))
    write_text(out / "report.html", page_html(table, options, verdicts, across, notices))


def across_csv(across: Sequence[Record]) -> str:
    """One row for every pair over its targets, in the order of verdicts.json."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ACROSS_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in across:
        row = {key: record.get(key) for key in ACROSS_COLUMNS}
        for name in ("ci95", "iqm_ci95"):
            row[f"{name}_low"], row[f"{name}_high"] = record[name] or (None, None)
        row["left_out"] = "; ".join(record["left_out"])
        writer.writerow(csv_row(row))
    return stream.getvalue()
