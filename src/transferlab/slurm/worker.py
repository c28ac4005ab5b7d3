"""The process that makes a task's runs: ``python -m transferlab.slurm.worker TASKS``.

Started by :mod:`transferlab.slurm.job`, with the scheduler's signals held back until it listens.
"""

import os
import sys
import threading
from pathlib import Path

from transferlab.slurm.tasks import own_task
from transferlab.stopping import STOPPED, Stopped, stopping


def main(path: Path) -> int:
    """Make the runs that are left, one after another; returns the exit code."""
    stopping.listen()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.path.append(str(Path.cwd()))  # classes of the user's own; last, behind their snapshot
    from transferlab.cluster import cluster
    from transferlab.study.requests import make

    several = cluster.nodes > 1
    if several:
        cluster.open()
    try:
        task = own_task(path)
        for run in task.pending():
            if stopping.asked:
                raise Stopped
            make(Path(run), task.again)
    except Stopped:
        return STOPPED
    if several:
        cluster.dismiss()
    return 0


def _end_with_parent() -> None:
    """End this process when the pipe on its standard input closes: nobody looks after it."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
