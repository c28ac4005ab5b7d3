"""What the cluster at hand has and says: partitions, limits, which jobs are still there."""

import getpass
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import NamedTuple

from transferlab.errors import UserError, nearest
from transferlab.slurm.settings import SlurmSettings, check_settings

PROGRAMS = ("sbatch", "squeue", "scontrol", "sinfo", "srun")
SECONDS = 60
"""How long one question to the cluster may take."""
CONFIRM_SECONDS = 2.0
"""A job between two states can be missing from one answer; it is gone if it is from two."""


def require(settings: SlurmSettings) -> None:
    """Check the settings, and against the cluster, before anything is submitted.

    Raises:
        UserError: a program, the partition or submitit is missing, or the time is too long.
    """
    check_settings(settings)
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise UserError(
            "hydra/launcher=slurm needs submitit: pip install 'transferlab[slurm]'."
        ) from error
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"hydra/launcher=slurm: {', '.join(missing)} not on the PATH. Start it on a machine "
            "from which jobs are submitted, or leave hydra/launcher out."
        )
    partition = _partition(settings)
    if partition.minutes is not None and settings.time > partition.minutes:
        raise UserError(
            f"hydra.launcher.time={settings.time}: partition {partition.name} allows "
            f"{partition.minutes} minutes. A job that needs longer is requeued and goes on, so "
            f"set hydra.launcher.time={partition.minutes}."
        )
    cpus = settings.cpus_per_task
    if cpus is not None and partition.cpus is not None and cpus > partition.cpus:
        raise UserError(  # SLURM takes such a job, and never starts it
            f"hydra.launcher.cpus_per_task={cpus}: a node of partition {partition.name} has "
            f"{partition.cpus}. Set hydra.launcher.cpus_per_task to that at the most."
        )


def longest(settings: SlurmSettings) -> int:
    """Return the minutes that a job may take in the partition; a week where it sets no limit."""
    return _partition(settings).minutes or 7 * 1440


def require_nodes(settings: SlurmSettings, nodes: int) -> None:
    """Raise a UserError unless the partition has so many nodes."""
    partition = _partition(settings)
    if nodes > partition.nodes:
        raise UserError(
            f"trainer.num_nodes={nodes}: partition {partition.name} has {partition.nodes}. Set "
            "trainer.num_nodes to that at the most, or another hydra.launcher.partition."
        )


@dataclass(frozen=True)
class _Partition:
    name: str
    minutes: int | None
    nodes: int
    cpus: int | None  # of its largest node, where sinfo says it


def _partition(settings: SlurmSettings) -> _Partition:
    """Return the partition that jobs go to: the named one, else the cluster's default."""
    found: dict[str, _Partition] = {}
    default = None
    for line in ask("sinfo", "--noheader", "--format=%P|%l|%D|%c").splitlines():
        name, limit, nodes, each = line.split("|")
        default = name.rstrip("*") if name.endswith("*") else default
        name = name.rstrip("*")
        others = found.get(name, _Partition(name, None, 0, 0))
        known = others.cpus is not None and each.strip().isdigit()  # else "4+": it may be more
        cpus = max(others.cpus or 0, int(each)) if known else None
        found[name] = _Partition(name, _minutes(limit), int(nodes) + others.nodes, cpus)
    wanted = settings.partition or default
    if wanted is None or wanted not in found:
        what = "there is no default" if wanted is None else "no such partition"
        raise UserError(
            f"hydra.launcher.partition={settings.partition}: {what} "
            f"({nearest(wanted, found) if found else 'sinfo lists none'})."
        )
    return found[wanted]


def _minutes(limit: str) -> int | None:
    """Read SLURM's [days-]hours:minutes:seconds; None where there is no limit."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit.strip())
    if found is None:
        return None
    days, hours, minutes, _ = (int(part or 0) for part in found.groups())
    return days * 1440 + hours * 60 + minutes


def largest_array(settings: SlurmSettings) -> int:
    """Return how many tasks an array may have: the cluster's MaxArraySize, or less if so set."""
    said = re.search(r"MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"))
    limits = [int(said[1]) if said else 1001, settings.max_array_size, settings.max_submit]
    return max(min(limit for limit in limits if limit is not None), 1)


class Active(NamedTuple):
    """What squeue says of a job that is pending or running.

    Attributes:
        name: that it was submitted under.
        reason: why it waits, in SLURM's word; "None" while it runs.
    """

    name: str
    reason: str


def active_jobs() -> dict[str, Active] | None:
    """Return this user's jobs that are pending or running, by id, tasks as ``A_a``.

    None: SLURM gives no answer now.
    """
    found: dict[str, Active] = {}
    for attempt in range(2):
        if attempt:
            time.sleep(CONFIRM_SECONDS)
        try:
            said = ask("squeue", "--noheader", "--array", f"--user={getpass.getuser()}",
                       "--format=%i|%r|%j")  # fmt: skip
        except UserError as error:  # the controller is busy or restarts: jobs go on without it
            sys.stderr.write(f"transferlab: {error}\n")
            return None
        for line in said.splitlines():
            job, reason, name = line.strip().split("|", 2)
            found[job] = Active(name, reason)
    return found


def ended_as(job: str) -> str:
    """Return how SLURM says that a job ended, as far as it still knows; sacct may not be there."""
    for command in (
        ("squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "--format=%T"),
        ("sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={job}", "--format=State"),
    ):
        try:
            said = ask(*command).split()
        except UserError:
            continue
        if said:
            return said[-1]
    return "unknown state"


def ask(*command: str) -> str:
    """Run one of SLURM's programs and return what it prints.

    Raises:
        UserError: it fails, is missing or does not answer; with its own words.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise UserError(f"{command[0]} failed: {' '.join(done.stderr.split())[:300]}")
    return done.stdout
