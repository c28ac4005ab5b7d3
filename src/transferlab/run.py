"""One run: one fit, one record. Pretraining is a run too, made once and shared."""

import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from transferlab.analysis.card import write_run_card
from transferlab.auto_depth import fit
from transferlab.backbones.weights import StateDict, load_weights
from transferlab.building import build
from transferlab.checkpoints import FOLDER, remove_checkpoints
from transferlab.errors import FullDiskError, RunError, UserError
from transferlab.forgetting import find_origin, wants_forgetting
from transferlab.launching import RankError, described, launch
from transferlab.lease import held
from transferlab.machine import ranks
from transferlab.module import DivergedError
from transferlab.planning import Plan, external_weights, plan_run, plan_source
from transferlab.records import (
    Record,
    clear_leftovers,
    read_json,
    recorded,
    sha256_file,
    write_json,
    write_text,
)
from transferlab.room import room_named
from transferlab.run_columns import carry_columns, lacks_columns
from transferlab.run_record import header, measure, no_metrics
from transferlab.split_data import data_name
from transferlab.trackers.base import TrackedRun
from transferlab.trackers.sending import Sender

FINAL = ("done", "diverged")
"""Outcomes that stand: a run that has one is not made again."""


LEASE = "run"
"""Beside a run's record lies who makes it, or made it."""


def finished(directory: Path) -> Record | None:
    """Return the record of a run whose outcome stands, else None."""
    record = recorded(directory)
    return record if record is not None and record.get("status") in FINAL else None


def made(plan: Plan) -> Record | None:
    """Return the record of a run that need not be made again, else None.

    A run that was made without keeping its weights, or without measuring its forgetting, is made
    again when that is asked for; columns that its predictions lack are added without training.
    """
    record = finished(plan.directory)
    if record is None or not trained(plan, record) or lacks_columns(plan, record):
        return None
    return record


def trained(plan: Plan, record: Record) -> bool:
    """Say whether nothing that is asked of a run needs its training."""
    if record["status"] != "done":
        return True
    keep = plan.cfg.checkpoint.keep
    where = "steps/*.safetensors" if keep == "all" else "*.safetensors"
    kept = any((plan.directory / "checkpoints").glob(where))
    lacking = keep != "none" and not kept
    lacking |= wants_forgetting(plan.cfg) and record.get("forgetting") is None
    return not lacking


def _with_columns(plan: Plan, record: Record) -> Record:
    if not lacks_columns(plan, record):
        return record
    record = carry_columns(plan, record)
    _write_card(plan.directory, record)
    return record


def _write_card(directory: Path, record: Record) -> None:
    """Leave a card beside weights that were kept."""
    if record.get("weights"):
        write_run_card(directory, record)


Stands = Callable[[Path], Record | None]
"""Returns the record of a run's directory if it is to stay as it is."""


def execute(plan: Plan, stands: Stands = finished) -> Record:
    """Make a run, or return the record of the one that was made before.

    Whatever happens is recorded: a fit that fails leaves its reason and its traceback behind.
    Another process that is at work on the run is waited for.

    Raises:
        UserError: something the user can mend, found before the first optimiser step.
        LeaseLostError: this process stood still for so long that another one took the run over.
    """
    record = attempt(plan, stands=stands)
    assert record is not None, "it was waited for"
    return record


def attempt(plan: Plan, *, wait: bool = True, stands: Stands = finished) -> Record | None:
    """Make a run as :func:`execute` does, or leave it to the process that is at work on it.

    Args:
        plan: the run.
        wait: for that process to end.
        stands: which records stay as they are.

    Returns:
        the record; None where another process is at work and was not waited for.
    """
    plan.directory.mkdir(parents=True, exist_ok=True)
    with held(plan.directory / LEASE, wait=wait) as mine:
        return _made_alone(plan, stands) if mine else None


def _made_alone(plan: Plan, stands: Stands) -> Record:
    known = stands(plan.directory)
    if known is not None and trained(plan, known):
        return _with_columns(plan, known)
    prepare(plan, known)
    started = time.perf_counter()
    record = _attempt(plan)
    return conclude(plan, record, time.perf_counter() - started)


def prepare(plan: Plan, known: Record | None) -> None:
    """Make a run's folder ready for it; its lease must be held."""
    clear_leftovers(plan.directory)
    if known is None:  # what failed before says nothing from here on
        (plan.directory / "run.json").unlink(missing_ok=True)
    write_text(plan.directory / "config.yaml", OmegaConf.to_yaml(plan.cfg, resolve=True))


def conclude(plan: Plan, record: Record, seconds: float) -> Record:
    """Write what came of a run, which took so long in this process."""
    cost = record.setdefault("cost", {})
    earlier = cost.get("earlier_seconds", 0.0)  # of processes that were killed
    cost["total_seconds"] = earlier + seconds
    write_json(plan.directory / "run.json", record)
    if record["status"] in FINAL:
        remove_checkpoints(plan.directory / FOLDER)
        _write_card(plan.directory, record)
    return record


def execute_rank(directory: Path) -> None:
    """Make this rank's part of the run whose ``config.yaml`` lies in ``directory``.

    The parent has planned the run, made its source and holds its lock; rank 0 leaves the record.
    """
    cfg = OmegaConf.load(directory / "config.yaml")
    assert isinstance(cfg, DictConfig)
    plan = plan_run(cfg)
    if plan.run_id != directory.name:
        raise RunError(f"a rank read run {plan.run_id} from the files of run {directory.name}")
    plan = replace(plan, directory=directory)
    first = int(os.environ["RANK"]) == 0
    record = _train(plan, header(plan), starting_weights(plan.cfg), tracked=first)
    if first:
        write_json(directory / "run.json", record)


def starting_weights(cfg: DictConfig) -> StateDict | None:
    """Return the weights that a backbone starts from; makes the source run where it is missing.

    Raises:
        UserError: the source run did not train, or the weights can't be read.
    """
    if cfg.source.kind == "none" or cfg.strategy.init == "random":
        return None
    if cfg.source.kind != "dataset":
        return external_weights(cfg)[0]
    plan = plan_source(cfg)
    record = execute(plan, _intact)
    if record["status"] != "done":
        raise UserError(
            f"the source run on {data_name(cfg.source)} {record['status']}: {record['reason']}. "
            f"See {plan.directory}; change source.pretrain."
        )
    return load_weights(plan.directory)


def _intact(directory: Path) -> Record | None:
    """Return a finished record whose weights are those that it tells of."""
    record = finished(directory)
    if record is None or record["status"] != "done":
        return record
    noted = record.get("weights") or {}
    path = directory / str(noted.get("file"))
    whole = path.is_file() and sha256_file(path) == noted.get("sha256")
    return record if whole else None  # another's crash, or a hand in the shared cache


def _attempt(plan: Plan) -> Record:
    record = header(plan)
    try:
        weights = starting_weights(plan.cfg)
        if wants_forgetting(plan.cfg):
            find_origin(plan.cfg)  # what it lacks is told before training, not after
        trainer = plan.cfg.trainer
        if ranks(trainer) == 1:
            return _train(plan, record, weights)
        del weights  # each rank reads its own
        launch(plan.directory, trainer.devices, trainer.threads, trainer.num_nodes)
        made_by_ranks: Record = read_json(plan.directory / "run.json")
        return made_by_ranks
    except UserError as error:
        write_json(plan.directory / "run.json", record | failure("failed", error, user=True))
        raise
    except DivergedError as error:
        return record | failure("diverged", error)
    except FullDiskError:
        raise  # nothing more can be written there; asked again, the run goes on
    except RankError as error:
        return record | failure("failed", error) | {"log": str(error.log)}
    except Exception as error:
        log = plan.directory / "log" / "rank0.log"
        write_text(log, traceback.format_exc())
        return record | failure("failed", error) | {"log": str(log)}


def _train(plan: Plan, record: Record, weights: StateDict | None, tracked: bool = True) -> Record:
    """Fit and measure in this process: the whole run, or one rank's part of it."""
    with room_named(plan.cfg, plan.directory), _trackers(plan, record, tracked) as loggers:
        fitted = fit(plan, weights, plan.directory, loggers)
        record |= measure(plan, fitted)
    return record


def failure(status: str, error: BaseException, user: bool = False) -> Record:
    """Return what a record says of a run that has no scores."""
    reason = described(error)
    return {"status": status, "reason": reason, "user_error": user, "metrics": no_metrics()}


@contextmanager
def _trackers(plan: Plan, record: Record, tracked: bool) -> Iterator[list[Logger]]:
    """Open the trackers of a run and finish them, also when it fails; rank 0 alone has any."""
    nodes = (plan.cfg.tracker or {}) if tracked else {}
    columns = ("source", "target", "shots", "backbone", "strategy", "seed", "lr", "budget_steps")
    run = TrackedRun(
        run_id=plan.run_id,
        name=f"{record['strategy']} from {record['source']}, seed {record['seed']}",
        group=str(plan.cfg.name),
        purpose=record["purpose"],
        directory=plan.directory,
        settings={key: record[key] for key in (*columns, "metric", "purpose")},
    )
    trackers = {str(name): build(node) for name, node in nodes.items()}
    senders = [Sender(name, tracker, run) for name, tracker in trackers.items()]
    status, whole = "failed", False
    try:
        yield list(senders)
        status, whole = record["status"], True
    except DivergedError:
        status, whole = "diverged", True
        raise
    finally:
        summary = {
            f"{split}_{name}": value
            for split, found in _splits(record.get("metrics") or {}).items()
            for name, value in (found or {}).items()
        }
        for sender in senders:
            sender.close(summary | {"status": status}, status != "done", whole)


def _splits(metrics: Record) -> Record:
    """Return scores by split, those of further test sets beside the others."""
    further = metrics.get("also_test") or {}
    own = {split: found for split, found in metrics.items() if split != "also_test"}
    return own | {f"also_test_{name}": found for name, found in further.items()}
