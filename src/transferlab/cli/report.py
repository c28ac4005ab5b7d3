"""``transferlab report DIR`` and ``transferlab report --table FILE``."""

from pathlib import Path

from transferlab.errors import UserError, nearest

HELP = """usage: transferlab report DIR [--baseline ARM]
       transferlab report --table FILE [--metric NAME] [--margin SIZE] [--alpha LEVEL]
                          [--percent] [--lower-is-better] [--out DIR]

Judge the runs of a directory again: verdicts.json, verdicts.csv, runs.csv, report.html.

  --baseline ARM     compare every other arm with this one instead of scratch, as a family of its
                     own; the files are named verdicts-against-ARM and report-against-ARM

--table judges results that were made elsewhere: a CSV or Parquet file with one row a run and the
columns source, target, strategy (`scratch` is the baseline), seed and score. Two more are read
where they are there: n_items, the number of test items; and items, the path from the table's folder
of the run's file with the columns item_id and correct (or score), which makes the interval count
test items as well as seeds; `group` there binds items, `label` (the true class) serves means over
classes. A score that is nan is a run that failed.

  --metric NAME      what the scores are; default accuracy
  --margin SIZE      the largest difference that doesn't matter, in the metric's unit; default 0.01
                     where that runs from 0 to 1, else it must be given
  --alpha LEVEL      the level held over the comparisons of each target; default 0.05
  --percent          scores are written from 0 to 100
  --lower-is-better  a lower score is a better one
  --out DIR          where verdicts and report go; default <FILE without its ending>-report
"""

TABLE_VALUES = ("--metric", "--margin", "--alpha", "--out")
TABLE_SWITCHES = ("--percent", "--lower-is-better")
VALUES = ("--table", "--baseline", *TABLE_VALUES)
SWITCHES = TABLE_SWITCHES


def main(argv: list[str]) -> int:
    """Run ``transferlab report``; returns the exit code."""
    if "-h" in argv or "--help" in argv:
        print(HELP, end="")
        return 0
    places, options = read_options(argv)
    if "--table" in options:
        if "--baseline" in options:
            raise UserError(
                "--baseline goes with a directory; in a table the strategy named scratch is the "
                "baseline. Name it so, or leave --baseline out."
            )
        return _report_table(places, options)
    stray = [name for name in options if name in (*TABLE_VALUES, *TABLE_SWITCHES)]
    if stray:
        raise UserError(
            f"{stray[0]} goes with --table alone: a study's own file declares how it is judged. "
            "Leave it out, or give --table FILE."
        )
    if len(places) != 1:
        raise UserError(f"report takes one directory, got {places}. Try: transferlab report DIR")
    from transferlab.analysis.judge import contrast, judge
    from transferlab.analysis.terminal import show

    folder, baseline = Path(places[0]), options.get("--baseline")
    show(judge(folder) if baseline is None else contrast(folder, baseline))
    return 0


def read_options(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """Split a command line into its places and its options, switches with an empty value.

    Raises:
        UserError: an option is unknown, is there twice, or lacks its value.
    """
    places: list[str] = []
    options: dict[str, str] = {}
    rest = iter(argv)
    for text in rest:
        name, equals, value = text.partition("=")
        if not text.startswith("--"):
            places.append(text)
            continue
        if name not in (*VALUES, *SWITCHES):
            raise UserError(
                f"unknown flag {name} ({nearest(name, [*VALUES, *SWITCHES, '--help'])})."
            )
        if name in options:
            raise UserError(f"{name} is there twice. Give it once.")
        if name in VALUES and not equals:
            value = next(rest, "")
        if (name in VALUES) != bool(value) or (name in VALUES and value.startswith("--")):
            wants = "needs a value" if name in VALUES else "takes no value"
            raise UserError(f"{name} {wants}. See transferlab report --help.")
        options[name] = value
    return places, options


def _report_table(places: list[str], options: dict[str, str]) -> int:
    if places:
        raise UserError(
            f"report --table judges one table, got {places} as well. Leave it out, or quote the "
            "table's path."
        )
    from transferlab.analysis.foreign.judging import judge_table
    from transferlab.analysis.foreign.options import checked
    from transferlab.analysis.foreign.terminal import show_table

    chosen = checked(
        options.get("--metric", "accuracy"),
        _number("--margin", options["--margin"]) if "--margin" in options else None,
        _number("--alpha", options.get("--alpha", "0.05")),
        percent="--percent" in options,
        lower_is_better="--lower-is-better" in options,
    )
    out = Path(options["--out"]) if "--out" in options else None
    show_table(judge_table(Path(options["--table"]), chosen, out))
    return 0


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{name} {text} is no number. Write it as 0.01.") from None
