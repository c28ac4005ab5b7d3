"""TensorBoard event files under the run's own directory."""

from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from transferlab.errors import UserError
from transferlab.trackers.base import TrackedRun


class TensorBoard:
    """Write event files to ``runs/<id>/tensorboard``; look with ``tensorboard --logdir``."""

    def open(self, run: TrackedRun) -> Logger:
        """Return a logger for a run."""
        try:
            logger = TensorBoardLogger(str(run.directory), name="tensorboard", version="")
        except ModuleNotFoundError as error:
            raise UserError(
                "tracker=tensorboard needs tensorboard: pip install 'transferlab[trackers]'."
            ) from error
        logger.log_hyperparams(run.settings)
        return logger

    def close(self, logger: Logger, summary: dict[str, Any], failed: bool) -> None:
        """Write the final scores and close the files."""
        numbers = {k: v for k, v in summary.items() if isinstance(v, int | float)}
        logger.log_metrics({f"final/{key}": float(value) for key, value in numbers.items()})
        logger.finalize("failed" if failed else "success")
