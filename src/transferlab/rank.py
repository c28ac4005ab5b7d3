"""One rank of a run on several devices: ``python -m transferlab.rank RUN_DIRECTORY``.

Started by :func:`transferlab.launching.launch`, never by hand: it reads the run's ``config.yaml``,
plans it as its parent did, and fits. Rank 0 alone writes.
"""

import os
import sys
import threading
import traceback
from pathlib import Path

from omegaconf import OmegaConf

from transferlab.launching import note_failure
from transferlab.records import sha256_record


def main(directory: Path) -> None:
    """Make this rank's part of the run; a failure is left in a file and ends the process."""
    rank = int(os.environ["RANK"])
    _log_to(directory / "log" / f"rank{rank}.log")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.path.append(str(Path.cwd()))  # classes of the user's own; last, as in the parent
    try:
        print(_told(directory, rank), flush=True)  # noqa: T201 - into its log
        from transferlab.run import execute_rank

        execute_rank(directory)
    except BaseException as error:
        traceback.print_exc()
        sys.stderr.flush()
        note_failure(directory, rank, error)
        os._exit(1)  # at once: an orderly exit would wait for peers that wait for this one


def _told(directory: Path, rank: int) -> str:
    """Say which configuration this rank has read: all ranks of a run must name the same."""
    read = OmegaConf.to_container(OmegaConf.load(directory / "config.yaml"), resolve=True)
    return (
        f"rank {rank} of {os.environ['WORLD_SIZE']}, run {directory.name}: "
        f"configuration {sha256_record(read)[:16]}"
    )


def _log_to(path: Path) -> None:
    """Send whatever this process prints, below Python too, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)


def _end_with_parent() -> None:
    """End this process when the pipe on its standard input closes: the launcher is gone."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
