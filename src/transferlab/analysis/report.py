"""report.html: one page that opens offline, verdicts first."""

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from transferlab.analysis import facts, gains
from transferlab.analysis.arms import Cell
from transferlab.analysis.formats import count, percent, short
from transferlab.analysis.further import decomposition, further_tables, of_cell, whole_tables
from transferlab.analysis.load import Study
from transferlab.analysis.sections import SECTIONS, cell_tables
from transferlab.analysis.singles import ADVICE, in_reading_order
from transferlab.analysis.terms import FLAGS, REASONS
from transferlab.analysis.verdicts import Judged
from transferlab.analysis.words import metric_words, scope_words, size_words, summary
from transferlab.records import Record


def report_html(study: Study, cells: Sequence[Cell], judged: Judged) -> str:
    """The whole page; the same records give the same text."""
    verdicts = judged.strategies
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("transferlab.analysis", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    failed = facts.failures(study)
    views = [_cell_view(study, cell, judged) for cell in cells]
    return environment.get_template("report.html.j2").render(
        name=str(study.header["name"]),
        declared=study.declared,
        lead=_lead(study, verdicts),
        about=_about(study),
        cells=views,
        sections=[part for part in SECTIONS if any(view[part["id"]] for view in views)],
        whole=whole_tables(study, judged),
        runs=None if study.declared else runs_table(study),
        explained=_explained(judged),
        failures=failed,
        failures_lead=_failures_lead(study, failed),
        skipped=study.skipped,
        footer=_footer(study),
    )


def runs_table(study: Study) -> facts.Table:
    """Every run of a folder without a declared family."""
    rows = []
    for run in in_reading_order(study):
        metric = str(run.get("metric") or "accuracy")
        scores = [(run["metrics"].get(split) or {}).get(metric) for split in ("validation", "test")]
        words = [str(run[key]) for key in ("source", "strategy", "target")]
        words += [size_words(run), str(run["status"]), str(run["seed"])]
        rows.append([short(run["run_id"], 16), *words, *(percent(score) for score in scores)])
    head = ["run", "source", "strategy", "target", "size", "status", "seed", "validation", "test"]
    return facts.Table(head, rows, words=6, note="Scores in percent.")


def _cell_view(study: Study, cell: Cell, judged: Judged) -> dict[str, Any]:
    own = of_cell(judged.strategies, cell)
    split = gains.decomposition(own)
    measured = any(verdict["per_replicate_delta"] for verdict in own)
    return {
        "title": gains.title(cell),
        "subtitle": gains.subtitle(cell),
        "verdicts": gains.verdict_rows(own) if own else None,
        "replicates": gains.replicate_rows(own) if measured else None,
        "decomposition": decomposition(split) if split else None,
        "further": further_tables(cell, judged),
        "curves": gains.curve_panels(cell, {verdict["arm"]: verdict for verdict in own}),
        "shared": facts.shared(cell),
        **cell_tables(study, cell, own),
    }


def _lead(study: Study, verdicts: Sequence[Record]) -> str:
    if verdicts:
        return summary(verdicts)
    if study.declared:
        return "This study declares no arm that transfers, so there is nothing to judge."
    return f"{count(len(study.runs), 'run')}, no verdicts. {ADVICE}"


def _about(study: Study) -> list[str]:
    header = study.header
    if not study.declared:
        return []
    alpha, looks = header["alpha"], header.get("looks") or [len(header["seeds"])]
    default = header.get("metric", "accuracy")
    scores = {metric_words(str(cell.get("metric") or default)) for cell in header["cells"]}
    judged = (
        f"Every verdict is on test {' or '.join(sorted(scores))} {_steps(header)}, "
        f"paired by seed, at a level of {alpha:g} held over each family of comparisons"
    )
    if len(looks) > 1:
        judged += f" and over {len(looks)} planned looks ({', '.join(map(str, looks))} seeds)"
    judged += f"; {scope_words(str(header.get('scope') or 'this_pool'))}."
    lines = [judged]
    if header.get("command"):
        lines.append(f"Made by: {header['command']}")
    return lines


def _steps(header: Record) -> str:
    kinds = {cell.get("budget", "equal") for cell in header["cells"]}
    return "at equal steps" + (", or each arm's own best where said" if len(kinds) > 1 else "")


def _explained(judged: Judged) -> list[tuple[str, str]]:
    verdicts = [*judged.strategies, *judged.sources, *judged.parts, *judged.elsewhere]
    used = {flag for verdict in verdicts for flag in verdict["flags"]}
    reasons = {verdict["reason"] for verdict in verdicts if verdict["reason"]}
    texts: Mapping[str, str] = {**FLAGS, **REASONS}
    return [
        (term.replace("_", " "), texts[term][0].upper() + texts[term][1:] + ".")
        for term in sorted(used | reasons)
        if term in texts
    ]


def _failures_lead(study: Study, failed: facts.Table) -> str:
    total = count(len(study.runs), "recorded run")
    text = f"{len(failed.rows)} of {total} did not end well."
    if not failed.rows:
        text = f"None of {total} failed." if study.runs else "No run has left a record yet."
    if study.unfinished:
        text += f" {count(len(study.unfinished), 'run')} started and left no record yet."
    if study.skipped:
        text += f" {count(len(study.skipped), 'record')} could not be read and was left out:"
    return text


def _footer(study: Study) -> str:
    environments = [run.get("environment") or {} for run in study.runs.values()]
    parts = []
    for key in ("transferlab", "torch", "python", "commit", "hardware"):
        found = sorted({str(env[key]) for env in environments if env.get(key) is not None})
        if found:
            parts.append(f"{key} {', '.join(found[:3])}" + (", …" if len(found) > 3 else ""))
    return "Made from the records beside this file. " + " · ".join(parts)
