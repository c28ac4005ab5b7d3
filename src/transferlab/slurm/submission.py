"""Arrays handed to sbatch, by submitit; a note says which job holds which runs.

submitit writes the sbatch file, submits it and names the logs. Its own way into the job is not
taken: it pickles the call, answers every signal by itself and requeues inside the handler. A job
here is the plain command ``python -m transferlab.slurm.job TASKS``.
"""

import io
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env
from submitit.slurm.slurm import SlurmExecutor

from transferlab.cache import cache_folder
from transferlab.errors import UserError
from transferlab.records import read_json, write_json
from transferlab.slurm.settings import SlurmSettings
from transferlab.slurm.site import active_jobs
from transferlab.slurm.tasks import FOLDER, Task, write_tasks
from transferlab.stopping import NOTICE


@dataclass(frozen=True)
class Array:
    """One submitted array.

    Attributes:
        job: its id.
        name: that it was submitted under; ids begin anew when a cluster is set up again.
        tasks: what its tasks do.
    """

    job: str
    name: str
    tasks: tuple[Task, ...]

    def ids(self) -> list[str]:
        """Return the tasks' ids, ``A_a``."""
        return [f"{self.job}_{number}" for number in range(len(self.tasks))]


def submit(
    settings: SlurmSettings, tasks: Sequence[Task], folder: Path, code: Path, after: str | None
) -> Array:
    """Submit tasks that ask for the same machine as one array.

    Args:
        settings: of the launcher.
        tasks: one or more.
        folder: of the study.
        code: the snapshot that the jobs run with.
        after: a job whose end this one waits for, or None.

    Raises:
        UserError: sbatch refuses, with its words.
    """
    path = write_tasks(folder, tasks)
    command = [sys.executable, "-u", "-m", "transferlab.slurm.job", str(path)]
    command.append(f"--max-requeues={settings.max_requeues}")
    trainer = OmegaConf.load(Path(tasks[0].runs[0]) / "config.yaml").trainer
    name = f"transferlab.{re.sub(r'[^A-Za-z0-9._-]', '_', folder.name)}.{path.stem[6:]}"
    wanted = _parameters(settings, trainer, name, after)
    job = sbatch(wanted, shlex.join(command), folder, code, settings.setup, count=len(tasks))
    array = Array(job, name, tuple(tasks))
    note = {"job": job, "name": name, "submitted": time.time(), "code": str(code)}
    runs = [{"runs": list(task.runs), "again": task.again} for task in tasks]
    write_json(folder / FOLDER / f"{job}.json", note | {"tasks": runs})
    return array


def submitted(folder: Path) -> list[Array]:
    """Return the arrays that were ever submitted for a study."""
    notes = [read_json(path) for path in (folder / FOLDER).glob("[0-9]*.json")]
    return [
        Array(n["job"], n["name"], tuple(Task(t["runs"], t["again"]) for t in n["tasks"]))
        for n in notes
    ]


class Held(NamedTuple):
    """A task that SLURM has not ended yet, and why it waits (see :class:`.site.Active`)."""

    task: Task
    reason: str


def still_there(arrays: Sequence[Array]) -> dict[str, Held] | None:
    """Return the tasks that are pending or running, by id; None: SLURM gives no answer."""
    active = active_jobs()
    if active is None:
        return None
    return {
        job: Held(task, active[job].reason)
        for array in arrays
        for job, task in zip(array.ids(), array.tasks, strict=True)
        if job in active and active[job].name == array.name
    }


def _parameters(
    settings: SlurmSettings, trainer: DictConfig, name: str, after: str | None
) -> dict[str, Any]:
    """Return submitit's parameters for one array: one task a node, which starts its ranks."""
    devices = int(trainer.devices)
    cpus = settings.cpus_per_task or devices * (1 + int(trainer.workers))
    more = {"requeue": True} | dict(settings.additional_parameters)
    wanted = {
        "job_name": name, "partition": settings.partition, "account": settings.account,
        "qos": settings.qos, "time": settings.time, "nodes": int(trainer.num_nodes),
        "ntasks_per_node": 1, "cpus_per_task": cpus, "dependency": after and f"afterany:{after}",
        "gres": f"{settings.gres}:{devices}" if trainer.accelerator in ("gpu", "cuda") else None,
        "mem": None if settings.mem_gb is None else f"{round(settings.mem_gb * 1024)}M",
        "array_parallelism": settings.array_parallelism,
        "signal_delay_s": settings.signal_seconds,
        # srun takes the CPUs of a task from its own flag alone, from SLURM 22.05 on
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={cpus}"],
        "additional_parameters": more | {"signal": f"{NOTICE.name[3:]}@{settings.signal_seconds}"},
    }  # fmt: skip
    return {key: value for key, value in wanted.items() if value is not None}


def sbatch(
    parameters: dict[str, Any],
    command: str,
    folder: Path,
    code: Path,
    setup: Sequence[str],
    *,
    count: int | None = None,
    more: Mapping[str, str] | None = None,
) -> str:
    """Submit a command and return the job's id.

    Args:
        parameters: submitit's.
        command: of the shell.
        folder: of the study.
        code: the snapshot that it runs with.
        setup: the user's lines of shell before it.
        count: tasks of an array; None submits a plain job.
        more: further variables of its environment.

    Raises:
        UserError: sbatch refuses, with its words.
    """
    here = {
        "PYTHONPATH": f"{code}${{PYTHONPATH:+:$PYTHONPATH}}",
        "PYTHONSAFEPATH": "1",  # else edited modules in the working directory came first
        "PYTHONWARNINGS": "ignore",
        "HF_HUB_OFFLINE": "1",  # nodes have no network: what is needed was fetched before
        "TRANSFERLAB_CACHE": shlex.quote(str(cache_folder().absolute())),
    } | {key: shlex.quote(value) for key, value in (more or {}).items()}
    exports = [f"export {key}={value}" for key, value in here.items()]
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    executor = SlurmExecutor(folder=folder / FOLDER)
    executor.update_parameters(**parameters, setup=[*setup, *exports])
    if count is not None:
        executor.parameters["map_count"] = count  # an array, also of one task: one form of ids
    try:
        # submitit prints what it also raises
        with _outside(), redirect_stderr(io.StringIO()):
            return str(executor._submit_command(command).job_id)
    except (FailedJobError, FailedSubmissionError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"the job could not be submitted: {said[-300:]}") from error


@contextmanager
def _outside() -> Iterator[None]:
    """Hide the job that this process itself may run in from the one that it submits."""
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    conf = os.environ.get("SLURM_CONF")
    with clean_env():
        if conf is not None:
            os.environ["SLURM_CONF"] = conf
        yield
