"""What ``hydra/launcher=slurm`` can be told, and what can be wrong in it without a cluster."""

from dataclasses import dataclass, field
from typing import Any

from transferlab.errors import UserError

OURS = (
    "array", "chdir", "dependency", "error", "gres", "job-name", "nodes", "ntasks",
    "ntasks-per-node", "output", "requeue", "signal",
)  # fmt: skip
"""Flags of sbatch that follow from a run's configuration or that the jobs rest on."""


@dataclass
class SlurmSettings:
    """Settings of the launcher; conf/hydra/launcher/slurm.yaml says what each is for."""

    _target_: str = "hydra_plugins.transferlab_slurm.launcher.SlurmLauncher"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: int = 60
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    gres: str = "gpu"
    array_parallelism: int = 16
    runs_per_job: int | None = None
    max_array_size: int | None = None
    max_submit: int | None = None
    signal_seconds: int = 120
    max_requeues: int = 100
    setup: list[str] = field(default_factory=list)
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    poll_seconds: float = 10.0
    wait: bool = True


AT_LEAST = {
    "time": 1, "cpus_per_task": 1, "array_parallelism": 1, "runs_per_job": 1,
    "max_array_size": 1, "max_submit": 1, "signal_seconds": 1, "max_requeues": 0,
}  # fmt: skip


def check_settings(settings: SlurmSettings) -> None:
    """Check values by themselves.

    Raises:
        UserError: names the key, what came in and what to do.
    """
    for key, least in AT_LEAST.items():
        value = getattr(settings, key)
        if value is not None and value < least:
            raise UserError(f"hydra.launcher.{key}={value}: expected {least} or more.")
    if settings.poll_seconds <= 0 or (settings.mem_gb is not None and settings.mem_gb <= 0):
        key = "poll_seconds" if settings.poll_seconds <= 0 else "mem_gb"
        raise UserError(f"hydra.launcher.{key}={getattr(settings, key)}: expected more than 0.")
    if settings.signal_seconds >= settings.time * 60:
        raise UserError(
            f"hydra.launcher.signal_seconds={settings.signal_seconds}: a job of "
            f"hydra.launcher.time={settings.time} minutes would be told to stop as it starts. "
            "Set a shorter notice, or a longer time."
        )
    taken = sorted(key for key in settings.additional_parameters if key.replace("_", "-") in OURS)
    if taken:
        raise UserError(
            f"hydra.launcher.additional_parameters.{taken[0]}: set by transferlab itself. Nodes "
            "and GPUs follow trainer.num_nodes, trainer.devices and trainer.accelerator; the "
            "notice is hydra.launcher.signal_seconds."
        )
