"""What Hydra calls: one run in this process, or the planned runs of a request."""

from pathlib import Path

from omegaconf import DictConfig, open_dict

from transferlab.checks import check, check_output
from transferlab.outcome import outcome
from transferlab.planning import Plan, plan_run
from transferlab.records import Record
from transferlab.run import execute
from transferlab.study.forecast import show_run
from transferlab.study.requests import serve


def job(cfg: DictConfig) -> None:
    """Make the runs of a request, or the one run that was composed."""
    outcome.started = True
    if cfg.request is not None:
        serve(Path(cfg.request))
        return
    try:
        _single(cfg)
    except Exception as error:  # it is raised again past Hydra
        outcome.error = error


def _single(cfg: DictConfig) -> None:
    with open_dict(cfg):
        cfg.study = None
    check(cfg)
    check_output(Path(cfg.output_dir))
    plan = plan_run(cfg)
    if cfg.dry_run:
        show_run(plan)
        return
    record = execute(plan)
    show(plan, record)
    if record["status"] != "done":
        log = record.get("log") or plan.directory / "metrics.jsonl"
        outcome.failure = f"run {plan.run_id} {record['status']}: {record['reason']}. See {log}."


def show(plan: Plan, record: Record) -> None:
    """Print a run's outcome in a few lines."""
    source = "" if record["source"] == "none" else f" from {record['source']}"
    lines = [f"run {plan.run_id}: {record['strategy']}{source} on "
             f"{record['target']}, {record['n_train']} images, {record['budget_steps']} steps, "
             f"seed {record['seed']}, score {record['metric']}: {record['status']}"]  # fmt: skip
    for split in ("validation", "test", "train"):
        found = (record.get("metrics") or {}).get(split)
        if found:
            lines.append(f"  {split:<10} " + "  ".join(f"{k} {v:.4f}" for k, v in found.items()))
    lines.append(f"  {plan.directory}")
    print("\n".join(lines))  # noqa: T201 - the job is where a single run speaks
