"""The thin Hydra shell around ``transferlab.slurm``: ``hydra/launcher=slurm``."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from transferlab.slurm.settings import SlurmSettings

ConfigStore.instance().store(
    group="hydra/launcher", name="slurm_schema", node=SlurmSettings, provider="transferlab"
)


class SlurmLauncher(Launcher):
    """Hand request files to jobs of a cluster, and return when all have ended."""

    def __init__(self, **settings: object) -> None:
        self.settings = SlurmSettings(**settings)  # type: ignore[arg-type]

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Check the settings against the cluster before anything is planned."""
        from transferlab.cluster import cluster
        from transferlab.slurm.site import require

        del hydra_context, task_function
        self.folder = Path(config.output_dir).absolute()
        self.config_folders = [
            str(source.path)
            for source in config.hydra.runtime.config_sources
            if source.schema == "file" and source.provider not in ("main", "schema")
        ]
        cluster.elsewhere = True
        require(self.settings)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Make the runs of request files; the records of the runs say what came of them."""
        from transferlab.slurm.conducting import conduct
        from transferlab.slurm.driver import submit_driver

        del initial_job_idx
        if not self.settings.wait:
            submit_driver(self.settings, self.folder, self.config_folders)
        paths = [overrides[0].partition("=")[2].strip("'") for overrides in job_overrides]
        conduct(self.settings, paths, self.folder)
        return [JobReturn(_return_value=None, status=JobStatus.COMPLETED) for _ in job_overrides]
