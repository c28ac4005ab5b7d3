"""From request files to finished runs: submit what no job holds yet, follow jobs to their end."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from transferlab.errors import UserError
from transferlab.slurm.settings import SlurmSettings
from transferlab.slurm.site import ended_as, largest_array, require_nodes
from transferlab.slurm.snapshot import snapshot
from transferlab.slurm.submission import Array, still_there, submit, submitted
from transferlab.slurm.tasks import FOLDER, Task, read_request


def conduct(settings: SlurmSettings, requests: Sequence[str | Path], folder: Path) -> list[str]:
    """Have the runs of some requests made by jobs; return the ids of those that were submitted.

    Runs that a job of an earlier submission still holds are waited for and not submitted again;
    where that job leaves one without a record, it is submitted then. Each run is tried once. A
    driver that ends in between loses nothing: jobs need none.

    Args:
        settings: of the launcher; ``wait=False`` submits and returns.
        requests: files of planned runs.
        folder: of the study.

    Raises:
        UserError: SLURM refuses the jobs.
    """
    asked = [read_request(Path(path)) for path in requests]
    tried: set[str] = set()
    jobs: list[str] = []
    while True:
        wanted = {run for task in asked for run in task.pending()} - tried
        if not wanted:
            return jobs
        held = _held(folder, wanted)
        free = [less for task in asked if (less := task.without(held | tried | _made(task))).runs]
        arrays = _submit_all(settings, free, folder)
        jobs += [array.job for array in arrays]
        tried |= {run for task in free for run in task.runs}
        if not settings.wait:
            return jobs
        _follow(settings, submitted(folder), wanted)
        _tell_lost(folder, [task.without(set(task.runs) - tried) for task in asked])


def _made(task: Task) -> set[str]:
    return set(task.runs) - set(task.pending())


def _held(folder: Path, wanted: set[str]) -> set[str]:
    """Return the runs that a job of an earlier submission has before it."""
    arrays = submitted(folder)
    active = still_there(arrays) if arrays else {}
    if active is None:
        raise UserError("squeue does not answer, and jobs for these runs may be there. Try later.")
    return {run for held in active.values() for run in held.task.runs} & wanted


def _submit_all(settings: SlurmSettings, tasks: Sequence[Task], folder: Path) -> list[Array]:
    """Submit tasks in arrays, as many as the site's limits ask for, each after the one before."""
    alike: dict[str, list[Task]] = {}
    for task in tasks:
        alike.setdefault(_machine(task), []).append(task)
    if not alike:
        return []
    size, code = largest_array(settings), snapshot(folder)
    chunks = [
        same[start : start + size] for same in alike.values() for start in range(0, len(same), size)
    ]
    for chunk in chunks:
        require_nodes(settings, int(_trainer(chunk[0]).num_nodes))
    if not settings.wait and settings.max_submit is not None and len(tasks) > settings.max_submit:
        raise UserError(
            f"hydra.launcher.wait=false with {len(tasks)} jobs, of which "
            f"hydra.launcher.max_submit={settings.max_submit} may be submitted at a time. Pack "
            "more runs into one (hydra.launcher.runs_per_job), or wait."
        )
    arrays: list[Array] = []
    for chunk in chunks:
        _wait_for_room(settings, submitted(folder), len(chunk))
        before = arrays[-1].job if arrays else None  # together they keep to array_parallelism
        arrays.append(submit(settings, chunk, folder, code, before))
        runs = sum(len(task.runs) for task in chunk)
        sys.stderr.write(
            f"transferlab: job {arrays[-1].job} with {runs} runs in {len(chunk)} tasks; its logs "
            f"lie in {folder / FOLDER}\n"
        )
    return arrays


def _machine(task: Task) -> str:
    trainer = _trainer(task)
    keys = ("num_nodes", "devices", "accelerator", "workers")
    return str([trainer[key] for key in keys])


def _trainer(task: Task) -> Any:
    return OmegaConf.load(Path(task.runs[0]) / "config.yaml").trainer


def _wait_for_room(settings: SlurmSettings, arrays: Sequence[Array], more: int) -> None:
    """Wait until so many more tasks may be submitted."""
    if settings.max_submit is None:
        return
    while True:
        active = still_there(arrays)
        if active is not None and len(active) + more <= settings.max_submit:
            return
        time.sleep(settings.poll_seconds)


ORDINARY = {"None", "Priority", "Resources", "Dependency", "JobArrayTaskLimit", "BeginTime"}
"""Why jobs wait where nothing is wrong; BeginTime keeps back what was requeued."""


def _follow(settings: SlurmSettings, arrays: Sequence[Array], wanted: set[str]) -> None:
    """Return once no job is left that holds any of these runs; tell what else jobs wait for."""
    told: set[tuple[str, str]] = set()
    while True:
        active = still_there(arrays)
        if active is not None:
            if not any(wanted & set(held.task.pending()) for held in active.values()):
                return
            waiting = {(job.partition("_")[0], held.reason) for job, held in active.items()}
            for job, reason in sorted(waiting - told):
                if reason not in ORDINARY:
                    sys.stderr.write(f"transferlab: job {job} waits: {reason}\n")
            told |= waiting
        time.sleep(settings.poll_seconds)


def _tell_lost(folder: Path, tasks: Sequence[Task]) -> None:
    """Say which runs' jobs ended without leaving a record of them."""
    last = {
        run: job
        for array in sorted(submitted(folder), key=lambda array: int(array.job))
        for job, task in zip(array.ids(), array.tasks, strict=True)
        for run in task.runs
    }
    for run in sorted({run for task in tasks for run in task.pending()}):
        job = last.get(run, "?")
        sys.stderr.write(
            f"transferlab: run {Path(run).name} was lost: job {job} ended ({ended_as(job)}) "
            f"without a record of it. See {folder / FOLDER / job}_0_log.err; the same command "
            "goes on.\n"
        )
