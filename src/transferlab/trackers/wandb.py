"""Weights & Biases, also with ``WANDB_MODE=offline``."""

from typing import Any, cast

from lightning.pytorch.loggers import Logger, WandbLogger

from transferlab.errors import UserError
from transferlab.trackers.base import TrackedRun


class Wandb:
    """One wandb run per run, its id the run's id, grouped by study.

    Args:
        project: of wandb.
        entity: of wandb; None takes the account's own.
    """

    def __init__(self, project: str = "transferlab", entity: str | None = None) -> None:
        self.project, self.entity = project, entity

    def open(self, run: TrackedRun) -> Logger:
        """Start or continue the wandb run of a run."""
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise UserError(
                "tracker=wandb needs wandb: pip install 'transferlab[trackers]'."
            ) from error
        # WandbLogger's own call of init warns about a setting that it passes by itself
        experiment = wandb.init(
            project=self.project,
            entity=self.entity,
            id=run.run_id,
            name=run.name,
            group=run.group,
            dir=str(run.directory),
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
            reinit="finish_previous",
        )
        logger = WandbLogger(experiment=experiment, save_dir=str(run.directory))
        logger.log_hyperparams(run.settings)
        return logger

    def close(self, logger: Logger, summary: dict[str, Any], failed: bool) -> None:
        """Write the final scores and finish the run, also when it failed."""
        experiment = cast(Any, logger).experiment
        experiment.summary.update(summary)
        experiment.finish(exit_code=1 if failed else 0)
