"""``transferlab status DIR``."""

from pathlib import Path

from transferlab.errors import UserError

HELP = """usage: transferlab status DIR

Show what is done, diverged, failed, unfinished and missing in a directory.
"""


def main(argv: list[str]) -> int:
    """Run ``transferlab status``; returns the exit code."""
    if "-h" in argv or "--help" in argv:
        print(HELP, end="")
        return 0
    if len(argv) != 1:
        raise UserError(f"status takes one directory, got {argv}. Try: transferlab status DIR")
    from transferlab.analysis.status import LISTED, read_status

    status = read_status(Path(argv[0]))
    total = ", ".join(f"{count} {name}" for name, count in sorted(status.counts.items()))
    print(f"{argv[0]}: {total or 'no runs'}; {status.seconds:.0f} s of runs")
    for purpose, counts in sorted(status.by_purpose.items()):
        print(f"  {purpose:<10} " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))
    for run, what, reason in status.failures[:LISTED]:
        print(f"  {run}  {what}: {reason}")
    if len(status.failures) > LISTED:
        print(f"  and {len(status.failures) - LISTED} more")
    return 0
