"""From records to judgement: load, judge, write the tables and the report."""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from transferlab.analysis.arms import cells_of
from transferlab.analysis.card import write_card
from transferlab.analysis.formats import count
from transferlab.analysis.load import Study, load_study
from transferlab.analysis.report import report_html
from transferlab.analysis.singles import ADVICE, cells_of_singles, in_reading_order
from transferlab.analysis.tables import runs_csv, verdicts_csv
from transferlab.analysis.verdicts import judge_against, judge_cells, nothing_judged
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
        further: verdicts on whole sources and on parts of composed ones.
        baseline: the arm that all others are compared with, where it isn't scratch.
    """

    name: str
    declared: bool
    verdicts: tuple[Record, ...]
    runs: tuple[Record, ...]
    report: Path
    advice: str
    notices: tuple[str, ...]
    further: tuple[Record, ...] = ()
    baseline: str = ""


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep Python from looking for garbage in records over and over: they have no cycles."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@_uncollected()
def judge(directory: Path) -> Judgement:
    """Judge what lies in ``directory`` and write verdicts, tables and report beside it.

    The same records give the same bytes.

    Raises:
        UserError: the folder is no study, or can't be written to.
    """
    study = load_study(directory)
    cells = cells_of(study) if study.declared else cells_of_singles(study)
    judged = judge_cells(study, cells) if study.declared else nothing_judged()
    study = replace(study, skipped=(*study.skipped, *judged.unreadable))
    header = {"format": FORMAT, "name": study.header["name"]}
    record = header | {
        "summary": summary(judged.strategies),
        "verdicts": judged.strategies,
        "source_verdicts": judged.sources,
        "part_verdicts": judged.parts,
        "further_test_verdicts": judged.elsewhere,
        "sizes": judged.sizes,
    }
    texts = {
        "verdicts.csv": verdicts_csv(judged.strategies),
        "runs.csv": runs_csv(study),
        "report.html": report_html(study, cells, judged),
    }
    _write(directory, {"verdicts.json": record}, texts)
    if study.declared:
        write_card(study, cells, judged.strategies)
    return Judgement(
        name=str(study.header["name"]),
        declared=study.declared,
        verdicts=tuple(judged.strategies),
        runs=tuple(in_reading_order(study)),
        report=directory / "report.html",
        advice="" if study.declared else ADVICE,
        notices=tuple(_notices(study)),
        further=(*judged.sources, *judged.parts, *judged.elsewhere),
    )


@_uncollected()
def contrast(directory: Path, baseline: str) -> Judgement:
    """Judge every other arm against one arm; the files are named after it.

    Raises:
        UserError: the folder is no declared study, has no such arm, or can't be written to.
    """
    study = load_study(directory)
    if not study.declared:
        raise UserError(f"{directory} declares no arms to compare with {baseline!r}. {ADVICE}")
    cells = cells_of(study)
    records = judge_against(study, cells, baseline)
    name = re.sub(r"[^A-Za-z0-9.]+", "-", baseline).strip("-")
    judged = replace(nothing_judged(), strategies=records)
    header = {"format": FORMAT, "name": study.header["name"], "baseline": baseline}
    texts = {
        f"verdicts-against-{name}.csv": verdicts_csv(records),
        f"report-against-{name}.html": report_html(study, cells, judged),
    }
    _write(directory, {f"verdicts-against-{name}.json": header | {"verdicts": records}}, texts)
    return Judgement(
        name=str(study.header["name"]),
        declared=True,
        verdicts=tuple(records),
        runs=(),
        report=directory / f"report-against-{name}.html",
        advice="",
        notices=tuple(_notices(study)),
        baseline=baseline,
    )


def _write(folder: Path, records: dict[str, Record], texts: dict[str, str]) -> None:
    try:
        for name, record in records.items():
            write_json(folder / name, record)
        for name, text in texts.items():
            write_text(folder / name, text)
    except OSError as error:
        raise UserError(
            f"The report can't be written to {folder} ({error.strerror or error}). "
            "Make the folder writable, or copy it to a place that is."
        ) from error


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
