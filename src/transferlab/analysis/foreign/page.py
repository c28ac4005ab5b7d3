"""report.html of a foreign table: the page of a study, with what a table can tell."""

from collections.abc import Mapping, Sequence

import jinja2

from transferlab import __version__
from transferlab.analysis.facts import Table
from transferlab.analysis.figures import Scale, axis, bar
from transferlab.analysis.foreign.cards import Records, View, card, strip_row, strips
from transferlab.analysis.foreign.options import Options
from transferlab.analysis.foreign.rows import SCRATCH
from transferlab.analysis.foreign.table import ForeignTable
from transferlab.analysis.foreign.words import across_summary, arm_words, flag_words, reason_words
from transferlab.analysis.formats import NOTHING, count, interval, listing, p_value, points
from transferlab.analysis.gains import GLYPHS
from transferlab.analysis.terms import WORDS
from transferlab.analysis.words import metric_words, summary
from transferlab.records import Record
from transferlab.stats.across_targets import FEWEST

ACROSS_HEAD = (
    *("", "targets", "better", "worse", "mean", "95 % interval", "middle half", "95 % interval"),
    *("p", "adjusted p"),
)
DESCRIBED = (0, 1, 2, 3, 4, 6)
"""Its columns that need no test."""


def page_html(
    table: ForeignTable,
    options: Options,
    verdicts: Records,
    across: Records,
    notices: Sequence[str],
) -> str:
    """The whole page; the same table gives the same text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("transferlab.analysis", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    common = _common(verdicts)
    by_target = {
        target: [verdict for verdict in verdicts if verdict["target"] == target]
        for target in table.targets()
        if table.arms(target)
    }
    failed = [row for row in table.rows if row.failed]
    return environment.get_template("foreign.html.j2").render(
        name=table.path.stem,
        lead=f"{summary(verdicts)} {across_summary(across)}".strip(),
        about=_about(options, common),
        cells=[_cell(target, own, options, common) for target, own in by_target.items()],
        bare=_bare(by_target),
        across=_across(across, options) if across else None,
        matrix=_matrix(by_target, options) if len(by_target) > 1 else None,
        read=_read(table),
        notices=notices,
        failures=Table(
            ["source", "strategy", "target", "seed", "line"],
            [[r.source, r.strategy, r.target, r.seed, str(r.line)] for r in failed],
            words=4,
        ),
        failures_lead=f"{len(failed) or 'None'} of {count(len(table.rows), 'run')} failed.",
        explained=_explained(verdicts),
        footer=f"Made from {table.path.name} (SHA-256 {table.sha256}). transferlab {__version__}",
    )


def _about(options: Options, common: Sequence[str]) -> list[str]:
    better = "lower" if options.lower_is_better else "higher"
    lines = [
        f"Made elsewhere, judged here: on test {metric_words(options.metric)} ({better} is "
        f"better), paired by seed, at a level of {options.alpha:g} held over the comparisons of "
        f"each target, with a margin of {options.margin_words}."
    ]
    if common:
        lines.append(f"Throughout: {'; '.join(flag_words(flag) for flag in common)}.")
    return lines


def _common(verdicts: Records) -> list[str]:
    """Flags of every measured row: said once, at the top."""
    flags = [verdict["flags"] for verdict in verdicts if verdict["n_pairs"]]
    return [flag for flag in flags[0] if all(flag in other for other in flags)] if flags else []


def _cell(target: str, own: Records, options: Options, common: Sequence[str]) -> View:
    n_pairs = {verdict["n_pairs"] for verdict in own}
    items = {verdict["n_items"] for verdict in own if verdict["n_items"]}
    parts = [count(len(own), "comparison"), f"{'–'.join(map(str, _ends(n_pairs)))} pairs each"]
    if items:
        parts.append(f"{'–'.join(f'{number:,}' for number in _ends(items))} test items")
    measured = any(verdict["ci95"] for verdict in own)
    return {
        "title": target,
        "subtitle": " · ".join(parts),
        "verdicts": card(own, options, common) if measured else None,
        "replicates": strips(own, options) if max(n_pairs) > 1 else None,
    }


def _ends(numbers: set[int]) -> list[int]:
    return sorted({min(numbers), max(numbers)})


def _bare(by_target: Mapping[str, Records]) -> list[str]:
    """Targets whose comparisons all lack an interval: a sentence for each reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for target, own in by_target.items():
        if any(verdict["ci95"] for verdict in own):
            continue
        for key in dict.fromkeys((v["verdict"], v["reason"] or "") for v in own):
            reasons.setdefault(key, []).append(target)
    return [
        f"{WORDS[word][0].upper()}{WORDS[word][1:]}, because {reason_words(reason)}: "
        f"{listing(targets)}."
        for (word, reason), targets in reasons.items()
    ]


def _across(across: Records, options: Options) -> View:
    """Every arm over its targets: bars of means, points of targets, and all numbers."""
    unit = options.unit
    tested = any(record["tested"] for record in across)
    reach = [0.0, -2 * options.margin, 2 * options.margin]
    dots = Scale.over([*reach, *(gain for r in across for gain in r["gains"].values())])
    few = f"With fewer than {FEWEST} targets nothing is tested over them: the numbers describe."
    note = (
        "Means over targets, one gain a target. Middle half: the mean without the lowest and the "
        "highest quarter of the targets, its interval from a bootstrap over targets. p: Wilcoxon's "
        f"signed ranks; adjusted by Holm for {count(across[0]['family_m'], 'comparison')}."
    )
    lead = (
        "Targets are the sample here, each weighs the same: what holds on average for targets "
        "like these, if they were drawn independently. It says nothing about a single target."
    )
    return {
        "lead": lead if tested else f"{lead} {few}",
        "bars": _bars(across, options) if tested else None,
        "dots": {
            "rows": [
                strip_row(r, list(r["gains"].values()), r["verdict"], dots, options) for r in across
            ],
            "axis": axis(dots, "gain against scratch", unit),
        },
        "table": Table(
            ACROSS_HEAD if tested else [ACROSS_HEAD[at] for at in DESCRIBED],
            [
                cells if tested else [cells[at] for at in DESCRIBED]
                for cells in (_across_cells(record, options) for record in across)
            ],
            note=note if tested else few,
        ),
    }


def _bars(across: Records, options: Options) -> View:
    """A row for each arm: the mean over its targets, with its interval."""
    reach = [0.0, -2 * options.margin, 2 * options.margin]
    ends = [end for record in across for end in (record["mean"], *(record["ci95"] or ()))]
    scale = Scale.over([*reach, *ends])
    return {
        "rows": [_across_row(record, scale, options) for record in across],
        "axis": axis(scale, "mean gain against scratch", options.unit),
        "caption": "Mean gain over targets, with its 95 % t interval.",
        "common": [],
    }


def _across_row(record: Record, scale: Scale, options: Options) -> View:
    unit, kind = options.unit, record["verdict"] if record["tested"] else "not_assessable"
    word = WORDS[kind] if record["tested"] else "not tested"
    gain = points(record["mean"], unit=unit)
    shown = {"delta": record["mean"], "ci95": record["ci95"]}
    p = record["p_holm"]
    return {
        "kind": kind,
        "glyph": GLYPHS[kind],
        "word": f"{word} on average" if kind in ("positive", "negative") else word,
        "name": arm_words(record["source"], record["strategy"]),
        "id": None,
        "bar": bar(scale, options.margin, shown, f"{record['arm']}: {word}, mean {gain}"),
        "gain": gain,
        "interval": interval(*record["ci95"], unit=unit) if record["ci95"] else "",
        "p": "" if p is None else p_value(p),
        "sentence": record["sentence"],
        "flags": [],
    }


def _across_cells(record: Record, options: Options) -> list[str]:
    unit = options.unit
    numbers = [str(record[key]) for key in ("n_targets", "better", "worse")]
    for value, bounds in (("mean", "ci95"), ("iqm", "iqm_ci95")):
        numbers.append(points(record[value], unit=unit))
        numbers.append(interval(*(record[bounds] or (None, None)), unit=unit))
    p_values = [p_value(record[key]) for key in ("p", "p_holm")]
    return [arm_words(record["source"], record["strategy"]), *numbers, *p_values]


def _matrix(by_target: Mapping[str, Records], options: Options) -> Table:
    """Every target's mean gain, arm by arm."""
    arms = list(dict.fromkeys(v["arm"] for own in by_target.values() for v in own))
    names = {v["arm"]: (v["source"], v["strategy"]) for own in by_target.values() for v in own}
    alone = len({strategy for _, strategy in names.values()}) == 1
    rows = []
    for target, own in by_target.items():
        gains = {verdict["arm"]: verdict["delta"] for verdict in own}
        rows.append([target, *(points(gains.get(arm), unit=options.unit) for arm in arms)])
    head = [names[arm][0] if alone else arm_words(*names[arm]) for arm in arms]
    return Table(["target", *head], rows, note="Mean gain over the pairs that are complete.")


def _read(table: ForeignTable) -> Table:
    rows = []
    for target in table.targets():
        own = [row for row in table.rows if row.target == target]
        sizes = sorted({row.n_items for row in own if row.n_items})
        rows.append(
            [
                target,
                str(len(table.arms(target))),
                str(len(table.scratch(target))),
                str(len(own)),
                str(sum(row.failed for row in own)),
                ", ".join(f"{size:,}" for size in sizes) or NOTHING,
                f"{sum(row.items is not None for row in own)}",
            ]
        )
    head = ["target", "arms", f"runs of {SCRATCH}", "runs", "failed", "test items"]
    return Table([*head, "runs with answers by item"], rows)


def _explained(verdicts: Records) -> list[tuple[str, str]]:
    found = {flag: flag_words(flag) for verdict in verdicts for flag in verdict["flags"]}
    found |= {v["reason"]: reason_words(v["reason"]) for v in verdicts if v["reason"]}
    return [
        (term.replace("_", " "), text[0].upper() + text[1:] + ".")
        for term, text in sorted(found.items())
    ]
