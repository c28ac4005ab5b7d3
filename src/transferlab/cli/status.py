"""``transferlab status DIR``."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from transferlab.analysis.formats import duration
from transferlab.analysis.status import LISTED, STATES, Status, read_status
from transferlab.errors import UserError

HELP = """usage: transferlab status DIR

Show which runs of a directory are done, running, queued, lost and failed, why, and the time left.
The study's command goes on with what is missing; with retry=failed it makes failed runs again.
"""


def main(argv: list[str]) -> int:
    """Run ``transferlab status``; returns the exit code."""
    if "-h" in argv or "--help" in argv:
        print(HELP, end="")
        return 0
    if len(argv) != 1:
        raise UserError(f"status takes one directory, got {argv}. Try: transferlab status DIR")
    status = read_status(Path(argv[0]))
    print(f"{argv[0]}: {_counted(status.counts) or 'no runs'}; {duration(status.seconds)} of runs")
    print("\n".join(_lines(status)))
    return 0


def _lines(status: Status) -> Iterator[str]:
    for purpose, counts in sorted(status.by_purpose.items()):
        yield f"  {purpose:<10} {_counted(counts)}"
    for run in status.running[:LISTED]:
        step = f", step {run.step} of {run.steps or '?'}" if run.step is not None else ""
        yield f"  running  {run.run} on {run.where}{step}"
    for failure in status.failures[:LISTED]:
        yield f"  {failure.run}  {failure.what}: {failure.reason}"
        yield from (f"    | {line}" for line in failure.log)
    if len(status.failures) > LISTED:
        yield f"  and {len(status.failures) - LISTED} more"
    if status.left is not None:
        yield f"about {duration(status.left)} left with {status.counts['running']} at a time"
    elif (status.counts["queued"] or status.counts["lost"]) and status.command:
        yield f"nobody is at work; this goes on: {status.command}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name])
