"""The thin Hydra shell around ``transferlab.study``: the default sweeper of ``transferlab run``."""

from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class StudySweeperConfig:
    """Hydra's entry for ``hydra/sweeper=study``."""

    _target_: str = "hydra_plugins.transferlab_study.sweeper.StudySweeper"


ConfigStore.instance().store(
    group="hydra/sweeper", name="study", node=StudySweeperConfig, provider="transferlab"
)


class StudySweeper(Sweeper):
    """Hand a multirun to ``transferlab.study``: a declared study, or a plain grid."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra gives; nothing heavy is imported before it is needed."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Conduct the study."""
        from transferlab.outcome import DetachedError
        from transferlab.study.sweeping import sweep

        assert self.hydra_context is not None
        assert self.task_function is not None
        assert self.config is not None
        try:
            sweep(self.hydra_context, self.task_function, self.config, arguments)
        except DetachedError as left:
            print(left)  # noqa: T201 - where to look for what goes on
