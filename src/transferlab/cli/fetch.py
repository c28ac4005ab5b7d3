"""``transferlab fetch``: what a run or a study needs from the network, ahead of its jobs."""

from transferlab.errors import UserError

HELP = """usage: transferlab fetch [KEY=VALUE ...] [-m]

Bring weights and data that a run, a grid (-m) or a study (experiment=NAME) needs, for all of its
arms, into the caches, decoded. The same command with run then needs no network, also on the nodes
of a cluster that share the caches. Takes what transferlab run takes, and trains nothing.
"""


def main(argv: list[str]) -> int:
    """Run ``transferlab fetch``; returns the exit code."""
    if "-h" in argv or "--help" in argv:
        print(HELP, end="")
        return 0
    for flag in ("--dry-run", "--find-lr", "--cfg"):
        if flag in argv:
            raise UserError(f"{flag}: fetch has no such flag. Use transferlab run for it.")
    from transferlab.cli.run import main as run

    return run([*argv, "fetch=true"])
