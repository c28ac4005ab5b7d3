"""What Hydra calls: one run in this process, or the planned runs of a request."""

from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from transferlab.checks import check, check_output
from transferlab.errors import UserError
from transferlab.outcome import outcome
from transferlab.planning import Plan, plan_run
from transferlab.rate_finder import find_rate, write_curve
from transferlab.records import Record
from transferlab.room import kept_bytes, passing_bytes, require_room
from transferlab.run import execute, made, starting_weights
from transferlab.slurm.single import on_cluster, submit_run
from transferlab.source_parts import expand_parts
from transferlab.study.fetching import fetch
from transferlab.study.forecast import show_run
from transferlab.study.requests import serve


def job(cfg: DictConfig) -> float | None:
    """Make the runs of a request, or the one run that was composed.

    Returns:
        the validation score of the one run, for sweepers that are not ours: higher is better, and
        0 where it has none. None after a request, a dry run or an error.
    """
    outcome.started = True
    if cfg.request is not None:
        serve(Path(cfg.request))
        return None
    try:
        return _single(cfg)
    except Exception as error:  # it is raised again past Hydra
        outcome.error = error
        return None


def _single(cfg: DictConfig) -> float | None:
    with open_dict(cfg):
        cfg.study = None
        searching, cfg.find_lr = cfg.find_lr, False  # the run itself, and its source, train
    if searching and cfg.dry_run:
        raise UserError("--find-lr and --dry-run: give one of the two.")
    settings = None if cfg.fetch else on_cluster(HydraConfig.get().launcher)
    expand_parts(cfg, GlobalHydra.instance().config_loader(), HydraConfig.get().overrides.hydra)
    check(cfg)
    check_output(Path(cfg.output_dir))
    if cfg.fetch:
        print("\n".join(fetch([cfg])))  # noqa: T201 - what a person asked to have
        return None
    plan = plan_run(cfg)
    if searching:
        show_search(plan)
        return None
    if cfg.dry_run:
        show_run(plan)
        return None
    needed = kept_bytes(plan, cfg.checkpoint.keep or cfg.checkpoint.select) + passing_bytes(plan)
    if made(plan) is None:
        require_room({plan.directory: needed}, f"run {plan.run_id}")
    record = execute(plan) if settings is None else submit_run(plan, settings)
    if record is None:
        return None
    show(plan, record)
    if record["status"] != "done":
        log = record.get("log") or plan.directory / "metrics.jsonl"
        outcome.failure = f"run {plan.run_id} {record['status']}: {record['reason']}. See {log}."
    validation = (record.get("metrics") or {}).get("validation") or {}
    return float(validation.get(record["metric"]) or 0.0)


def show_search(plan: Plan) -> None:
    """Search for a run's rate; print it, and where its curve lies."""
    curve = find_rate(plan, starting_weights(plan.cfg))
    path = Path(plan.cfg.output_dir).absolute() / "rates" / f"{plan.run_id}.jsonl"
    write_curve(curve, path)
    said = "no rate to suggest: the loss nowhere falls"
    if curve.rate is not None:
        said = f"suggested optimizer.lr={curve.rate:.1e}, where the loss falls fastest"
    end = "where the loss exploded" if curve.stopped else "the end of the search"
    lines = [
        said,
        f"  {len(curve.rates)} steps from {curve.rates[0]:.0e} to {curve.rates[-1]:.1e}, {end}",
        f"  {path.with_suffix('.png')}",
        f"  {path}",
    ]
    print("\n".join(lines))  # noqa: T201 - the job is where a single run speaks


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
    for name, found in ((record.get("metrics") or {}).get("also_test") or {}).items():
        lines.append(f"  {name:<10} " + "  ".join(f"{k} {v:.4f}" for k, v in found.items()))
    lines.append(f"  {plan.directory}")
    print("\n".join(lines))  # noqa: T201 - the job is where a single run speaks
