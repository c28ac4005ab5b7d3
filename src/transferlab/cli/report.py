"""``transferlab report DIR``."""

from pathlib import Path

from transferlab.errors import UserError

HELP = """usage: transferlab report DIR

Judge the runs of a directory again: verdicts.json, verdicts.csv, runs.csv, report.html.
"""


def main(argv: list[str]) -> int:
    """Run ``transferlab report``; returns the exit code."""
    if "-h" in argv or "--help" in argv:
        print(HELP, end="")
        return 0
    if len(argv) != 1:
        raise UserError(f"report takes one directory, got {argv}. Try: transferlab report DIR")
    from transferlab.analysis.judge import judge
    from transferlab.analysis.terminal import show

    show(judge(Path(argv[0])))
    return 0
