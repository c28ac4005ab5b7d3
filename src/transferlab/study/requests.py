"""Runs handed to Hydra's launchers: a job gets a file of planned runs, never a command line."""

import json
import math
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from transferlab.errors import INTERRUPTED, UserError
from transferlab.planning import Plan, plan_run
from transferlab.records import Record, read_json, sha256_record, write_json, write_text
from transferlab.run import execute, made

CHUNKS_PER_WORKER = 4
"""Jobs a worker gets in a wave: enough that all end at about the same time."""


@dataclass
class Launching:
    """A launcher, how many jobs it has running at a time, and how many runs are packed into one."""

    launcher: Launcher
    workers: int
    launched: int = 0
    runs_per_job: int | None = None


def launching(launcher: Launcher, cfg: DictConfig) -> Launching:
    """Read from the launcher's own settings how many jobs it runs at a time."""
    settings = cfg.hydra.launcher
    jobs = settings.get("n_jobs") or settings.get("array_parallelism") or 1
    workers = max((os.cpu_count() or 1) + 1 + int(jobs), 1) if int(jobs) < 0 else int(jobs)
    return Launching(launcher, workers, runs_per_job=settings.get("runs_per_job"))


def launch(where: Launching, plans: Sequence[Plan], folder: Path) -> None:
    """Make those runs of a wave that have no outcome yet; returns when all have ended.

    Args:
        where: the launcher.
        plans: the wave.
        folder: of the request files.

    Raises:
        UserError: a run found something that the user can mend.
    """
    missing = [plan for plan in plans if made(plan) is None]
    for plan in missing:
        (plan.directory / "run.json").unlink(missing_ok=True)  # a failed one is made again
        write_text(plan.directory / "config.yaml", OmegaConf.to_yaml(plan.cfg, resolve=True))
    jobs = []
    for part in _packed(where, missing):
        runs = [str(plan.directory) for plan in part]
        path = (folder / f"{sha256_record(runs)[:12]}.json").absolute()
        write_text(path, json.dumps({"runs": runs}, indent=1))
        jobs.append([f"request='{path}'"])
    if jobs:
        returned = _launched(where, jobs)
        where.launched += len(jobs)
        for job in returned:
            _ = job.return_value  # raises what a job raised: launchers keep silent about it
    for plan in missing:
        _raise_user_error(plan.directory)


def _launched(where: Launching, jobs: list[list[str]]) -> Sequence[JobReturn]:
    """Launch jobs; an interrupt ends the worker processes too.

    A pool whose workers die of the same interrupt can wait for them for ever, so that with
    workers this process ends at once: records are written whole, and locks fall with it.
    """
    if where.workers == 1:
        return where.launcher.launch(jobs, initial_job_idx=where.launched)
    before = signal.signal(signal.SIGINT, _end)
    try:
        return where.launcher.launch(jobs, initial_job_idx=where.launched)
    finally:
        signal.signal(signal.SIGINT, before)


def _end(number: int, frame: object) -> None:
    del number, frame
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    sys.stderr.write(f"{INTERRUPTED}\n")
    sys.stderr.flush()
    os._exit(130)


def serve(request: Path) -> None:
    """Make the runs of a request file, one after another; this is what a job does.

    A run that fails is recorded and the next one goes on; the driver reads the records.
    """
    for directory in read_json(request)["runs"]:
        make(Path(directory))


def make(directory: Path) -> None:
    """Make the run whose ``config.yaml`` lies in ``directory``; whatever happens is recorded."""
    cfg = OmegaConf.load(directory / "config.yaml")
    assert isinstance(cfg, DictConfig)
    try:
        plan = plan_run(cfg)
        if plan.directory != directory:
            raise UserError(
                f"{directory}: its data or weights changed since it was planned "
                f"(now run {plan.run_id}). Start the study again."
            )
        execute(plan)
    except UserError as error:
        _note(directory, error)  # the driver reports it


def outcomes(plans: Sequence[Plan]) -> list[Record | None]:
    """Read the records of a wave; None for a run that left none."""
    records: list[Record | None] = []
    for plan in plans:
        path = plan.directory / "run.json"
        try:
            records.append(read_json(path) if path.is_file() else None)
        except ValueError:
            records.append(None)
    return records


def _packed(where: Launching, plans: Sequence[Plan]) -> list[list[Plan]]:
    """Share runs out to jobs; those of one job ask for the same machine."""
    alike: dict[tuple[object, ...], list[Plan]] = {}
    for plan in plans:
        trainer = plan.cfg.trainer
        alike.setdefault((trainer.accelerator, trainer.devices, trainer.num_nodes), []).append(plan)
    packed = []
    for same in alike.values():
        parts = where.workers * CHUNKS_PER_WORKER if where.workers > 1 else 1
        if where.runs_per_job:
            parts = math.ceil(len(same) / where.runs_per_job)
        packed += _dealt(same, parts)
    return packed


def _dealt(plans: Sequence[Plan], parts: int) -> list[list[Plan]]:
    """Deal runs out in turn, so that slow and fast arms mix in every part."""
    dealt = [list(plans[start::parts]) for start in range(min(parts, len(plans)))]
    return [part for part in dealt if part]


def _note(directory: Path, error: UserError) -> None:
    """Leave a record of a run that could not start, unless it left one itself."""
    if not (directory / "run.json").is_file():
        failure = {"run_id": directory.name, "status": "failed", "reason": str(error)}
        write_json(directory / "run.json", failure | {"user_error": True, "metrics": {}})


def _raise_user_error(directory: Path) -> None:
    path = directory / "run.json"
    if path.is_file():
        record: dict[str, Any] = read_json(path)
        if record.get("user_error"):
            raise UserError(str(record["reason"]))
