"""One rank of a run on several devices: ``python -m transferlab.rank RUN_DIRECTORY``.

Started by :func:`transferlab.launching.launch`, never by hand: it reads the run's ``config.yaml``,
plans it as its parent did, and fits. Rank 0 alone writes.
"""

import io
import os
import select
import sys
import threading
import traceback
from pathlib import Path
from typing import TextIO

from omegaconf import OmegaConf

from transferlab.launching import note_failure, note_stop
from transferlab.records import sha256_record
from transferlab.redaction import redacted
from transferlab.stopping import Stopped, stopping


def main(directory: Path) -> None:
    """Make this rank's part of the run; a failure is left in a file and ends the process."""
    rank = int(os.environ["RANK"])
    _log_to(directory / "log" / f"rank{rank}.log")
    threading.Thread(target=_heed_parent, daemon=True).start()
    sys.path.append(str(Path.cwd()))  # classes of the user's own; last, as in the parent
    try:
        print(_told(directory, rank), flush=True)  # noqa: T201 - into its log
        from transferlab.run import execute_rank

        execute_rank(directory)
    except Stopped:
        if rank == 0:
            note_stop(directory)
        sys.stdout.flush()
        os._exit(0)  # in order, but at once, as below
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
    sys.stdout, sys.stderr = _Redacted(sys.stdout), _Redacted(sys.stderr)


class _Redacted(io.TextIOBase):
    """A stream without the environment's secrets: a library may print an address or a header."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redacted(text))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()


def _heed_parent() -> None:
    """Watch the pipe on standard input: a byte asks to stop, its end says the launcher is gone.

    All ranks of a node read the same pipe, so each takes its one byte and no more.
    """
    if os.read(0, 1):
        stopping.asked = True
        gone = select.poll()
        gone.register(0, 0)
        gone.poll()
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
