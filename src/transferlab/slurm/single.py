"""A single run made by a job: ``transferlab run ... hydra/launcher=slurm`` without ``-m``."""

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from transferlab.cluster import cluster
from transferlab.errors import RunError
from transferlab.planning import Plan
from transferlab.records import Record, recorded, sha256_record, write_json, write_text
from transferlab.run import made
from transferlab.slurm.settings import SlurmSettings
from transferlab.slurm.site import require
from transferlab.slurm.tasks import FOLDER


def on_cluster(launcher: DictConfig) -> SlurmSettings | None:
    """Return the settings if a run is to be made by a SLURM job, checked; else None.

    Raises:
        UserError: the settings, or what the cluster has, don't allow it.
    """
    if launcher.get("_target_") != SlurmSettings._target_:
        return None
    found = OmegaConf.to_container(launcher, resolve=True)
    assert isinstance(found, dict)
    settings = SlurmSettings(**{str(key): value for key, value in found.items()})
    require(settings)
    cluster.elsewhere = True
    return settings


def submit_run(plan: Plan, settings: SlurmSettings) -> Record | None:
    """Have a job make a run and return its record; None if the job is not waited for.

    Raises:
        UserError: SLURM refuses the job.
        RunError: the job ended without a record of the run.
    """
    from transferlab.slurm.conducting import conduct  # needs submitit, which is optional

    known = made(plan)
    if known is not None:
        return known
    record = recorded(plan.directory)
    again = {} if record is None else {plan.run_id: sha256_record(record)}
    write_text(plan.directory / "config.yaml", OmegaConf.to_yaml(plan.cfg, resolve=True))
    folder = Path(plan.cfg.output_dir).absolute()
    path = folder / FOLDER / f"request-{plan.run_id}.json"
    write_json(path, {"runs": [str(plan.directory)], "again": again})
    jobs = conduct(settings, [path], folder)
    if not settings.wait:
        sys.stdout.write(f"submitted: run {plan.run_id} as job {', '.join(jobs) or '(is there)'}\n")
        sys.stdout.write(f"  {plan.directory}\n")
        return None
    record = recorded(plan.directory)
    if record is None or record == (again or None):
        raise RunError(f"run {plan.run_id} was lost: its job ended without a record of it.")
    return record
