"""``transferlab predict RUN IMAGES``."""

import sys
from pathlib import Path

from transferlab.errors import UserError, nearest

HELP = """usage: transferlab predict RUN IMAGES... [--output FILE] [--allow PACKAGE]

Label images (files or folders) with the model of a run, preprocessed as in its training.
Writes predictions.csv, or FILE. A run with classes of your own needs --allow PACKAGE, once for
each package: the run's own files can't allow code.
"""
FLAGS = ("--output", "--allow", "--help")


def main(argv: list[str]) -> int:
    """Run ``transferlab predict``; returns the exit code."""
    if "-h" in argv or "--help" in argv:
        print(HELP, end="")
        return 0
    outputs, argv = _taken(argv, "--output", "a file name")
    packages, argv = _taken(argv, "--allow", "the name of a package")
    output = Path(outputs[-1] if outputs else "predictions.csv")
    stray = [text for text in argv if text.startswith("-")]
    if stray:
        raise UserError(f"unknown flag {stray[0]} ({nearest(stray[0], FLAGS)}).")
    if len(argv) < 2:
        raise UserError(
            f"predict takes a run's directory and images, got {argv}. "
            "Try: transferlab predict RUN IMAGES"
        )
    from transferlab.prediction import predict

    if packages:
        sys.path.append(str(Path.cwd()))  # classes of the user's own; last, as in transferlab run
    frame = predict(Path(argv[0]), [Path(path) for path in argv[1:]], output, packages)
    counts = frame["prediction"].value_counts()
    shown = ", ".join(f"{name} {count}" for name, count in counts.head(8).items())
    print(f"{len(frame)} images: {shown}{', ...' if len(counts) > 8 else ''}\n{output}")
    return 0


def _taken(argv: list[str], flag: str, what: str) -> tuple[list[str], list[str]]:
    """Return the values given to a flag, and the arguments without them."""
    values: list[str] = []
    while flag in argv:
        at = argv.index(flag)
        if at + 1 >= len(argv):
            raise UserError(f"{flag} needs {what}.")
        values.append(argv[at + 1])
        argv = argv[:at] + argv[at + 2 :]
    return values, argv
