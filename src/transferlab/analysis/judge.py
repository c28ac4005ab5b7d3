"""From records to judgement: load, judge, write the tables and the report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transferlab.analysis.arms import Cell, cells_of
from transferlab.analysis.formats import count
from transferlab.analysis.load import Study, load_study
from transferlab.analysis.report import report_html
from transferlab.analysis.singles import ADVICE, cells_of_singles, in_reading_order
from transferlab.analysis.tables import runs_csv, verdicts_csv
from transferlab.analysis.verdicts import judge_cells
from transferlab.analysis.words import summary
from transferlab.errors import UserError
from transferlab.records import FORMAT, Record, write_json, write_text


@dataclass(frozen=True)
class Judgement:
    """What a study came to.

    Attributes:
        name: the study's name.
        declared: False where no family was declared and so nothing judged.
        verdicts: one record for each transfer arm of each cell, as in verdicts.json.
        runs: every readable run.json, those that differ only by seed together.
        report: the page that was written.
        advice: what to run to get verdicts; empty where there are some.
        notices: what was left out, in sentences.
    """

    name: str
    declared: bool
    verdicts: tuple[Record, ...]
    runs: tuple[Record, ...]
    report: Path
    advice: str
    notices: tuple[str, ...]


def judge(directory: Path) -> Judgement:
    """Judge what lies in ``directory`` and write verdicts, tables and report beside it.

    The same records give the same bytes.

    Raises:
        UserError: the folder is no study, or can't be written to.
    """
    study = load_study(directory)
    cells = cells_of(study) if study.declared else cells_of_singles(study)
    verdicts, unreadable = judge_cells(study, cells) if study.declared else ([], [])
    study = replace(study, skipped=(*study.skipped, *unreadable))
    try:
        _write(study, cells, verdicts)
    except OSError as error:
        raise UserError(
            f"The report can't be written to {directory} ({error.strerror or error}). "
            "Make the folder writable, or copy it to a place that is."
        ) from error
    return Judgement(
        name=str(study.header["name"]),
        declared=study.declared,
        verdicts=tuple(verdicts),
        runs=tuple(in_reading_order(study)),
        report=directory / "report.html",
        advice="" if study.declared else ADVICE,
        notices=tuple(_notices(study)),
    )


def _write(study: Study, cells: Sequence[Cell], verdicts: Sequence[Record]) -> None:
    folder = study.directory
    header = {"format": FORMAT, "name": study.header["name"], "summary": summary(verdicts)}
    write_json(folder / "verdicts.json", {**header, "verdicts": list(verdicts)})
    write_text(folder / "verdicts.csv", verdicts_csv(verdicts))
    write_text(folder / "runs.csv", runs_csv(study))
    write_text(folder / "report.html", report_html(study, cells, verdicts))


def _notices(study: Study) -> list[str]:
    notices = []
    lost = study.skipped
    if lost:
        notices.append(f"{count(len(lost), 'record')} could not be read, the first: {lost[0]}")
    if study.unfinished:
        notices.append(
            f"{count(len(study.unfinished), 'run')} left no record yet; run the study again to "
            "finish."
        )
    return notices
