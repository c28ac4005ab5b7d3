"""Runs handed to Hydra's launchers: a job gets a file of planned runs, never a command line."""

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from transferlab.errors import INTERRUPTED, UserError
from transferlab.lease import LeaseLostError
from transferlab.planning import Plan, plan_run
from transferlab.processes import has_ended, signature
from transferlab.records import (
    Record,
    read_json,
    recorded,
    sha256_record,
    write_json,
    write_text,
)
from transferlab.run import attempt, finished, made
from transferlab.run_together import attempt_together, batches_of

FAILED = "failed"
TRIES = 3
"""Times that a wave is launched anew after one of its workers was killed."""
WATCH_SECONDS = 0.5
"""Between two looks at whether the driver of a local worker is still there."""
CHUNKS_PER_WORKER = 4
"""Jobs a worker gets in a wave: enough that all end at about the same time."""


@dataclass
class Launching:
    """A launcher, its jobs at a time and runs a job, and whether failed runs are made again."""

    launcher: Launcher
    workers: int
    retry: bool = False
    runs_per_job: int | None = None
    launched: int = 0


def launching(launcher: Launcher, cfg: DictConfig) -> Launching:
    """Read how many jobs the launcher runs at a time, and whether failed runs are made again."""
    settings = cfg.hydra.launcher
    jobs = settings.get("n_jobs") or settings.get("array_parallelism") or 1
    workers = max((os.cpu_count() or 1) + 1 + int(jobs), 1) if int(jobs) < 0 else int(jobs)
    pool = getattr(launcher, "joblib", None)
    if pool is not None:
        own: Any = launcher
        own.joblib = {**pool, "initializer": end_with, "initargs": (signature(),)}
    return Launching(launcher, workers, cfg.retry == FAILED, settings.get("runs_per_job"))


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
    failed = {plan.run_id: record for plan in missing if (record := recorded(plan.directory))}
    again = {
        run: sha256_record(record)
        for run, record in failed.items()
        if where.retry or record.get("user_error") or record["status"] != FAILED
    }
    missing = [plan for plan in missing if plan.run_id in again or plan.run_id not in failed]
    for plan in missing:
        write_text(plan.directory / "config.yaml", OmegaConf.to_yaml(plan.cfg, resolve=True))
    for _ in range(TRIES):
        missing = [plan for plan in missing if not _has_outcome(plan, again)]
        if not missing or _launched(where, _jobs(where, missing, again, folder)):
            break
    for plan in missing:
        _raise_user_error(plan.directory)


def _jobs(
    where: Launching, missing: Sequence[Plan], again: Mapping[str, str], folder: Path
) -> list[list[str]]:
    """Write request files; returns the overrides of each job."""
    jobs = []
    for part in _packed(where, missing):
        asked = {
            "runs": [str(plan.directory) for plan in part],
            "again": {run: again[run] for plan in part if (run := plan.run_id) in again},
        }
        path = (folder / f"{sha256_record(asked)[:12]}.json").absolute()
        write_text(path, json.dumps(asked, indent=1))
        jobs.append([f"request='{path}'"])
    return jobs


def _has_outcome(plan: Plan, again: Mapping[str, str]) -> bool:
    record = recorded(plan.directory)
    if record is None or sha256_record(record) == again.get(plan.run_id):
        return False
    return made(plan) is not None or record["status"] == FAILED


def _launched(where: Launching, jobs: list[list[str]]) -> bool:
    """Launch jobs and wait for them; False where a worker was killed, which ends all of a pool.

    An interrupt ends the worker processes too: a pool whose workers die of the same interrupt can
    wait for them for ever, so that with workers this process ends at once. Records are written
    whole, and leases of processes that ended are free.
    """
    before = signal.getsignal(signal.SIGINT)
    if where.workers > 1:
        signal.signal(signal.SIGINT, _end)
    try:
        returned: Sequence[JobReturn] = where.launcher.launch(jobs, initial_job_idx=where.launched)
    except BrokenProcessPool:
        return False
    finally:
        signal.signal(signal.SIGINT, before)
        where.launched += len(jobs)
    for job in returned:
        _ = job.return_value  # raises what a job raised: launchers keep silent about it
    return True


def _end(number: int, frame: object) -> None:
    del number, frame
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    sys.stderr.write(f"{INTERRUPTED}\n")
    sys.stderr.flush()
    os._exit(130)


def serve(request: Path) -> None:
    """Make the runs of a request file; this is what a job does.

    Those that can share a fit are made together, the others one after another. A run that fails is
    recorded and the next one goes on; the driver reads the records. What another process is at
    work on is left for last, and waited for then.
    """
    asked = read_json(request)
    again = dict(asked.get("again", {}))
    runs = [Path(run) for run in asked["runs"]]
    plans: dict[Path, Plan] = {}
    for run in runs:
        with suppress(Exception):  # whatever is wrong shows when it is made
            plans[run] = _plan(run)
    for batch in batches_of(list(plans.values())):
        with suppress(Exception):
            attempt_together(batch, partial(_stands, again=again))
    later = [run for run in runs if not make(run, again, wait=False, plan=plans.get(run))]
    for run in later:
        make(run, again, plan=plans.get(run))


def end_with(driver: str) -> None:
    """Have this worker end when its driver does, and by no interrupt of its own.

    Whoever killed the driver meant its workers too. A terminal's interrupt reaches all of them: the
    driver then ends its workers, and what they would say about it would hide the driver's words.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(driver,), daemon=True).start()


def _watch(driver: str) -> None:
    while not has_ended(driver):
        time.sleep(WATCH_SECONDS)
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(1)


def make(
    directory: Path, again: Mapping[str, str], *, wait: bool = True, plan: Plan | None = None
) -> bool:
    """Make the run whose ``config.yaml`` lies in ``directory``; whatever happens is recorded.

    Args:
        directory: of the run.
        again: by run id, the hash of a record that says "failed" and is to be made again. A run
            that failed anew, under another driver, is left as it is.
        wait: for another process that is at work on it.
        plan: what this process made of that file before.

    Returns:
        False where another process is.
    """
    try:
        plan = plan or _plan(directory)
        return attempt(plan, wait=wait, stands=partial(_stands, again=again)) is not None
    except LeaseLostError:
        return False
    except UserError as error:
        _note(directory, error)  # the driver reports it
        return True


def _stands(folder: Path, again: Mapping[str, str]) -> Record | None:
    record = recorded(folder)
    failed = record is not None and record.get("status") == FAILED
    if record is not None and failed and sha256_record(record) != again.get(folder.name):
        return record
    return finished(folder)


def _plan(directory: Path) -> Plan:
    cfg = OmegaConf.load(directory / "config.yaml")
    assert isinstance(cfg, DictConfig)
    plan = plan_run(cfg)
    if plan.directory != directory:
        raise UserError(
            f"{directory}: its data or weights changed since it was planned "
            f"(now run {plan.run_id}). Start the study again."
        )
    return plan


def outcomes(plans: Sequence[Plan]) -> list[Record | None]:
    """Read the records of a wave; None for a run that left none."""
    return [recorded(plan.directory) for plan in plans]


def _packed(where: Launching, plans: Sequence[Plan]) -> list[list[Plan]]:
    """Share runs out to jobs; those of one job ask for the same machine."""
    alike: dict[tuple[object, ...], list[Plan]] = {}
    for plan in plans:
        trainer = plan.cfg.trainer
        alike.setdefault((trainer.accelerator, trainer.devices, trainer.num_nodes), []).append(plan)
    packed = []
    for same in alike.values():
        if where.runs_per_job:
            packed += _dealt([[plan] for plan in same], math.ceil(len(same) / where.runs_per_job))
        else:
            parts = where.workers * CHUNKS_PER_WORKER if where.workers > 1 else 1
            packed += _dealt(_units(same), parts)
    return packed


def _units(plans: Sequence[Plan]) -> list[list[Plan]]:
    """Return runs that can share a fit as one, the others one by one."""
    shared = list(batches_of(plans))
    known = {plan.run_id for unit in shared for plan in unit}
    return shared + [[plan] for plan in plans if plan.run_id not in known]


def _dealt(units: Sequence[Sequence[Plan]], parts: int) -> list[list[Plan]]:
    """Deal units out in turn, so that slow and fast arms mix in every part."""
    dealt = [units[start::parts] for start in range(min(parts, len(units)))]
    return [[plan for unit in part for plan in unit] for part in dealt]


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
