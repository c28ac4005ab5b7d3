"""A task of a SLURM job: ``python -m transferlab.slurm.job TASKS``, once on every node.

On the first node it looks after a worker process that makes the runs (:mod:`.worker`): it passes
the scheduler's notice on, records the run under which a worker died and starts another one for the
rest, and asks SLURM to run the job again when the worker stopped in order. On the other nodes it
starts ranks when the first node calls.

``python -m transferlab.slurm.job run ...`` looks after ``transferlab run ...`` in the same way; an
sbatch file of one's own starts it with srun, on one node.

Exit code 1 if any run failed, so that SLURM says FAILED and ``afterok`` holds back what follows.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from transferlab.records import recorded, write_json
from transferlab.slurm.tasks import own_task
from transferlab.stopping import NOTICE, STOPPABLE, STOPPED

MAX_REQUEUES = 100
"""Of a job whose launcher did not say."""
KILLED_WITHIN = 120
"""Seconds in which SLURM ends a job that it is about to run again, or that was cancelled."""


class Notice:
    """What the scheduler has said: passed on to the worker, acted upon when that has stopped.

    Attributes:
        final: it was SIGTERM. Then the job is cancelled, or SLURM runs it again by itself.
    """

    def __init__(self) -> None:
        self.given, self.final = False, False
        self.worker: subprocess.Popen[bytes] | None = None
        signal.signal(NOTICE, self._note)
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: object) -> None:
        del frame
        self.given = True
        self.final |= number == signal.SIGTERM
        self.pass_on()

    def pass_on(self) -> None:
        """Tell the worker, if there is one."""
        if self.worker is not None and self.worker.poll() is None:
            self.worker.send_signal(NOTICE)


def main(arguments: list[str]) -> int:
    """Do this node's part of a task; returns the exit code."""
    notice = Notice()
    if arguments[0] == "run":
        return _look_after(arguments, notice)
    path = Path(arguments[0])
    if int(os.environ.get("SLURM_NODEID", 0)) > 0:
        return _serve_first_node()
    task = own_task(path)
    command = [sys.executable, "-u", "-m", "transferlab.slurm.worker", str(path)]
    while pending := task.pending():
        code = _work(command, notice)
        left = task.pending()
        if left and (code == STOPPED or notice.given):
            return _leave(notice, int(arguments[1].partition("=")[2]))
        if left and (code != 0 or len(left) == len(pending)):
            _record_death(Path(left[0]), code)
    return int(any(_failed(Path(run)) for run in task.runs))


def _look_after(arguments: list[str], notice: Notice) -> int:
    """Run a command of ours, and have the job run again if it stopped in order."""
    os.environ[STOPPABLE] = "1"
    code = _work([sys.executable, "-u", "-m", "transferlab", *arguments], notice)
    if code == STOPPED:
        return _leave(notice, MAX_REQUEUES)
    return code if code >= 0 else 1


def _work(command: list[str], notice: Notice) -> int:
    """Run a worker to its end and return its exit code."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [NOTICE, signal.SIGTERM])
    try:  # it unblocks the notice once it listens; until then it would die of it
        notice.worker = subprocess.Popen(command, stdin=subprocess.PIPE)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if notice.given:
        notice.pass_on()
    return notice.worker.wait()


def _leave(notice: Notice, most: int) -> int:
    """Have the job run again, unless SLURM ends it anyway."""
    if not notice.final:
        return _requeue(most)
    time.sleep(KILLED_WITHIN)  # SLURM runs a preempted job again only if it did not end by itself
    return 1


def _requeue(most: int) -> int:
    """Ask SLURM to run this job again; it ends the job then."""
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    if restarts >= most:
        _say(f"was requeued {restarts} times (hydra.launcher.max_requeues), so it ends here")
        return 1
    asked = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    if asked.returncode:
        _say(f"can't be requeued ({asked.stderr.strip()}); submitted again, it goes on")
        return 1
    _say("stopped in order and is requeued")
    time.sleep(KILLED_WITHIN)
    return 1


def _say(what: str) -> None:
    sys.stderr.write(f"transferlab: job {os.environ.get('SLURM_JOB_ID')} {what}.\n")
    sys.stderr.flush()


def _failed(directory: Path) -> bool:
    """Say whether a run failed; that it diverged is an outcome where runs are compared."""
    record = recorded(directory)
    if record is None:
        return True
    compared = record.get("purpose") in ("tune", "replicate")
    return record["status"] != "done" and not (compared and record["status"] == "diverged")


def _record_death(directory: Path, code: int) -> None:
    """Leave a record of the run that a worker died under."""
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    job = f"{os.environ.get('SLURM_JOB_ID')} on {os.environ.get('SLURMD_NODENAME')}"
    record: dict[str, Any] = {
        "run_id": directory.name,
        "status": "failed",
        "reason": f"its process {how}, in SLURM job {job}",
        "user_error": False,
        "metrics": {},
        "time": time.time(),
    }
    write_json(directory / "run.json", _about(directory) | record)


def _about(directory: Path) -> dict[str, Any]:
    """Return what the configuration says of a run, as far as a table of failures asks."""
    from omegaconf import OmegaConf

    cfg = OmegaConf.load(directory / "config.yaml")
    return {
        "purpose": cfg.purpose,
        "source": cfg.source.name,
        "target": cfg.target.name,
        "strategy": cfg.strategy.name,
        "seed": cfg.seed,
    }


def _serve_first_node() -> int:
    """Start this node's ranks of every run that the first node calls to."""
    from transferlab.cluster import cluster
    from transferlab.launching import attend
    from transferlab.stopping import stopping

    stopping.listen()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the first node decides what it means
    for meeting, call in cluster.calls():
        attend(meeting, call)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
