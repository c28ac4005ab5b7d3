"""``transferlab predict RUN IMAGES``."""

from pathlib import Path

from transferlab.errors import UserError, nearest

HELP = """usage: transferlab predict RUN IMAGES... [--output FILE]

Label images (files or folders) with the model of a run, preprocessed as in its training.
Writes predictions.csv, or FILE.
"""


def main(argv: list[str]) -> int:
    """Run ``transferlab predict``; returns the exit code."""
    if "-h" in argv or "--help" in argv:
        print(HELP, end="")
        return 0
    output = Path("predictions.csv")
    if "--output" in argv:
        at = argv.index("--output")
        if at + 1 >= len(argv):
            raise UserError("--output needs a file name.")
        output = Path(argv[at + 1])
        argv = argv[:at] + argv[at + 2 :]
    stray = [text for text in argv if text.startswith("-")]
    if stray:
        raise UserError(f"unknown flag {stray[0]} ({nearest(stray[0], ['--output', '--help'])}).")
    if len(argv) < 2:
        raise UserError(
            f"predict takes a run's directory and images, got {argv}. "
            "Try: transferlab predict RUN IMAGES"
        )
    from transferlab.prediction import predict

    frame = predict(Path(argv[0]), [Path(path) for path in argv[1:]], output)
    counts = frame["prediction"].value_counts()
    shown = ", ".join(f"{name} {count}" for name, count in counts.head(8).items())
    print(f"{len(frame)} images: {shown}{', ...' if len(counts) > 8 else ''}\n{output}")
    return 0
