"""Weights & Biases, also with ``WANDB_MODE=offline``."""

from pathlib import Path
from typing import Any

import pandas as pd

from transferlab.trackers.base import TrackedRun, TrackedStudy, require_package
from transferlab.trackers.wandb_files import highest_step


class Wandb:
    """One wandb run per run, its id the run's id, grouped by study.

    Offline, every process that works on a run leaves a directory of its own, and together they
    hold each step once.

    Args:
        project: of wandb.
        entity: of wandb; None takes the account's own.
    """

    def __init__(self, project: str = "transferlab", entity: str | None = None) -> None:
        require_package("wandb", "wandb")
        self.project, self.entity = project, entity
        self._run: Any = None

    def open(self, run: TrackedRun) -> int:
        """Start or continue the wandb run of a run."""
        on_disk = highest_step(run.directory / "wandb", run.run_id)
        self._run = self._init(
            run.directory,
            id=run.run_id,
            name=run.name,
            group=run.group,
            job_type=run.purpose,
            config=run.settings,
        )
        return on_disk if self._run.offline else int(self._run.starting_step) - 1

    def log(self, values: dict[str, float], step: int) -> None:
        """Send a step."""
        self._run.log(values, step=step)

    def close(self, summary: dict[str, Any], failed: bool) -> None:
        """Write the final scores and finish the run, also when it failed."""
        self._run.summary.update(summary)
        self._run.finish(exit_code=1 if failed else 0)

    def publish(self, study: TrackedStudy) -> None:
        """Send tables and report as a run of the study's own; the gains are a table there."""
        import wandb

        run = self._init(
            study.directory, id=study.run_id, name=study.name, group=study.name, job_type="study"
        )
        try:
            sent = {"verdicts": _table(study.verdicts), "gains": _table(study.gains)}
            if study.page is not None:
                sent["report"] = wandb.Html(study.page.read_text(), inject=False)
            run.log(sent)
            run.summary["summary"] = study.summary
        finally:
            run.finish()

    def _init(self, directory: Path, **about: Any) -> Any:
        import wandb

        return wandb.init(
            project=self.project,
            entity=self.entity,
            dir=str(directory),
            resume="allow",
            settings=wandb.Settings(  # a diff of the working tree may hold lists of images
                silent=True, console="off", disable_git=True, disable_code=True
            ),
            reinit="finish_previous",
            **about,
        )


def _table(frame: pd.DataFrame) -> Any:
    import wandb

    rows = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    return wandb.Table(columns=list(frame.columns), data=rows, allow_mixed_types=True)
