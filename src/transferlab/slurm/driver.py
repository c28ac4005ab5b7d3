"""A study that conducts itself: its driver as a small job, submitted so that one can go home."""

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from transferlab.composing import CONF_FOLDERS
from transferlab.outcome import DetachedError
from transferlab.records import sha256
from transferlab.slurm.settings import SlurmSettings
from transferlab.slurm.site import longest
from transferlab.slurm.snapshot import snapshot
from transferlab.slurm.submission import sbatch
from transferlab.slurm.tasks import FOLDER
from transferlab.stopping import NOTICE

NOTICE_SECONDS = 60
OWN = ("hydra.launcher.wait=", "hydra.searchpath=", "--config-dir", "-cd")


def submit_driver(settings: SlurmSettings, folder: Path, config_folders: Sequence[str]) -> NoReturn:
    """Submit this very command as a job that waits for the study's jobs and judges them.

    It runs from a snapshot of code and configuration. All that it knows lies in the study's
    folder, so at its own time limit it is requeued and goes on.

    Args:
        settings: of the launcher.
        folder: of the study.
        config_folders: of the user, which composition looked into beside transferlab's own.

    Raises:
        DetachedError: always, with the job's id, once it is submitted.
        UserError: SLURM refuses it.
    """
    code = snapshot(folder)
    arguments = [*_kept(sys.argv[1:]), "hydra.launcher.wait=true"]
    command = [sys.executable, "-u", "-m", "transferlab", "run", *arguments]
    minutes = longest(settings)
    wanted = {
        "job_name": f"transferlab.{folder.name}.driver", "partition": settings.partition,
        "account": settings.account, "qos": settings.qos, "nodes": 1, "ntasks_per_node": 1,
        "cpus_per_task": 1, "use_srun": False, "time": minutes,
        "mem": None if settings.mem_gb is None else f"{round(settings.mem_gb * 1024)}M",
        "additional_parameters": dict(settings.additional_parameters) | {
            "requeue": True, "signal": f"B:{NOTICE.name[3:]}@{NOTICE_SECONDS}",
        },
    }  # fmt: skip
    again = f"trap 'scontrol requeue \"$SLURM_JOB_ID\"' {NOTICE.name[3:]}"
    here = {CONF_FOLDERS: ":".join(_copied(config_folders, code))}
    job = sbatch(
        {key: value for key, value in wanted.items() if value is not None},
        f"{again}\n{shlex.join(command)} & wait $!", folder, code, settings.setup, more=here,
    )  # fmt: skip
    raise DetachedError(
        f"submitted: job {job} conducts the study; its log is {folder / FOLDER / job}_0_log.out. "
        f"transferlab status {folder} shows how far it is."
    )


def _kept(arguments: Sequence[str]) -> list[str]:
    """Return the command line less what the job is told in another way."""
    kept = []
    values = iter(arguments)
    for argument in values:
        if argument in ("--config-dir", "-cd"):
            next(values, None)
        elif not argument.startswith(OWN):
            kept.append(argument)
    return kept


def _copied(config_folders: Sequence[str], code: Path) -> list[str]:
    """Copy the user's configuration groups beside the code, and return where they lie."""
    found = []
    for given in config_folders:
        files = {path.relative_to(given): path.read_bytes() for path in Path(given).rglob("*.yaml")}
        text = "".join(f"{name}{sha256(content)}" for name, content in sorted(files.items()))
        folder = code.parent / f"conf-{sha256(text)[:16]}"
        if not folder.is_dir():
            shutil.copytree(given, folder, ignore=_all_but_yaml, dirs_exist_ok=True)
        found.append(str(folder))
    return found


def _all_but_yaml(folder: str, names: list[str]) -> list[str]:
    return [n for n in names if not n.endswith(".yaml") and not Path(folder, n).is_dir()]
