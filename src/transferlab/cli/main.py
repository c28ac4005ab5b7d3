"""``transferlab COMMAND``: finds the command, and turns errors into one line and an exit code."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence

from transferlab import __version__
from transferlab.errors import INTERRUPTED, RunError, UserError, nearest
from transferlab.redaction import redacted
from transferlab.stopping import STOPPED, Stopped, interrupts_kept

COMMANDS = {
    "run": "make a run, a grid of runs (-m) or a whole study (experiment=NAME)",
    "recommend": "score sources on a target before training, and say what to try first",
    "fetch": "bring weights and data ahead of runs without a network",
    "report": "judge the runs of a directory again and write its report",
    "status": "show what is done, failed and missing in a directory",
    "cache": "show what runs share on this machine, or make room there",
    "predict": "label images with a run: transferlab predict RUN IMAGES",
}
HELP = (
    f"""transferlab {__version__}: does transfer help or hurt here?

usage: transferlab COMMAND ... [--debug]

"""
    + "\n".join(f"  {name:<10} {what}" for name, what in COMMANDS.items())
    + """

examples:
  transferlab run experiment=digits
  transferlab run source=glyphs target=digits target.shots=5 strategy=fine_tune seed=1
  transferlab run -m strategy=scratch,feature_extraction,fine_tune source=glyphs seed=0,1,2
  transferlab run experiment=compare target=image_folder target.root=DIR
  transferlab recommend candidates.source=[glyphs,noise] target=digits target.shots=20
  transferlab report outputs/digits

Each command explains itself with --help. Exit codes: 0 done; 2 something to mend, found before
training; 1 a run failed; 130 interrupted.
"""
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    try:
        with interrupts_kept():
            return _command(arguments[0])(arguments[1:])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Stopped:
        return STOPPED
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        code, line = _explained(error)
        print(line, file=sys.stderr, flush=True)
        return code


def _explained(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the line for what ended a command."""
    if isinstance(error, KeyboardInterrupt):
        return 130, INTERRUPTED
    text = redacted(" ".join(str(error).split()))
    if isinstance(error, UserError | RunError):
        return 2 if isinstance(error, UserError) else 1, f"transferlab: {text}"
    return 1, (
        f"transferlab: {type(error).__name__}: {text} (a fault of transferlab's own: "
        "--debug shows where)"
    )


def _command(name: str) -> Callable[[list[str]], int]:
    if name not in COMMANDS:
        raise UserError(f"no command {name!r} ({nearest(name, COMMANDS)}). See transferlab --help.")
    command: Callable[[list[str]], int] = importlib.import_module(f"transferlab.cli.{name}").main
    return command
