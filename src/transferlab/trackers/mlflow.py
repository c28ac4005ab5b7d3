"""MLflow: one run per run on a tracking server."""

import os
import time
from typing import Any

from transferlab.errors import UserError
from transferlab.trackers.base import NOTHING, TrackedRun, TrackedStudy, require_package

FINAL = "final/"
GAIN = "gain"
RUN_ID = "transferlab.run_id"
"""Tag that a run is found by when it goes on; the id of the server's own is drawn there."""
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # of mlflow's own 7, a lost server costs minutes a run
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""What mlflow reads from the environment, where that does not say otherwise."""


class MLflow:
    """One MLflow run per run, in one experiment, with the study as a tag.

    Args:
        tracking_uri: of the server; None takes ``MLFLOW_TRACKING_URI``.
        experiment: of MLflow; made where it is missing.
    """

    def __init__(self, tracking_uri: str | None = None, experiment: str = "transferlab") -> None:
        require_package("mlflow", "mlflow")
        if not (tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")):
            raise UserError(
                "tracker=mlflow: no server is named. Set tracker.mlflow.tracking_uri, for example "
                "http://127.0.0.1:5000, or MLFLOW_TRACKING_URI."
            )
        self.tracking_uri, self.experiment = tracking_uri, experiment
        self._client: Any = None
        self._run: Any = None

    def open(self, run: TrackedRun) -> int:
        """Start or continue the MLflow run of a run."""
        tags = {"transferlab.study": run.group, "transferlab.purpose": run.purpose}
        self._run = self._started(run.run_id, run.name, tags)
        known = self._run.data
        for key in run.settings.keys() - known.params.keys():
            self._client.log_param(self._id, key, run.settings[key])
        curves = [key for key in known.metrics if key != GAIN and not key.startswith(FINAL)]
        points = (p for key in curves for p in self._client.get_metric_history(self._id, key))
        return max((point.step for point in points), default=NOTHING)

    def log(self, values: dict[str, float], step: int) -> None:
        """Send a step in one request, so that it is there whole or not at all."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(key, float(value), now, step) for key, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self, summary: dict[str, Any], failed: bool) -> None:
        """Write the final scores, unless they are there, and end the run."""
        numbers = {FINAL + k: v for k, v in summary.items() if isinstance(v, int | float)}
        known = self._run.data.metrics
        self.log({k: v for k, v in numbers.items() if k not in known}, 0)
        for key, value in summary.items():
            if isinstance(value, str):
                self._client.set_tag(self._id, f"transferlab.{key}", value)
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")

    def publish(self, study: TrackedStudy) -> None:
        """Keep tables and report with a run of the study's own; give the study's runs their gain.

        Runs that the server does not have are left out.
        """
        tags = {"transferlab.study": study.name, "mlflow.note.content": study.summary}
        self._run = self._started(study.run_id, study.name, tags)
        for name, table in (("verdicts", study.verdicts), ("gains", study.gains)):
            self._client.log_text(self._id, table.to_csv(index=False), f"{name}.csv")
        if study.page is not None:
            self._client.log_text(self._id, study.page.read_text(), "report.html")
        self._client.set_terminated(self._id)
        for run_id, gain in study.gain_by_run().items():
            run = self._find(run_id)
            if run is not None and run.data.metrics.get(GAIN) != gain:
                self._client.log_metric(run.info.run_id, GAIN, gain)

    @property
    def _id(self) -> str:
        return str(self._run.info.run_id)

    def _started(self, run_id: str, name: str, tags: dict[str, str]) -> Any:
        """Return the run of that id, made where it is missing, and set it running."""
        for variable, value in DEFAULTS.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient

        self._client = MlflowClient(self.tracking_uri)
        run = self._find(run_id)
        if run is None:
            tags = tags | {RUN_ID: run_id}
            return self._client.create_run(self._experiment(), tags=tags, run_name=name)
        self._client.update_run(run.info.run_id, status="RUNNING")
        return run

    def _find(self, run_id: str) -> Any:
        query = f"tags.`{RUN_ID}` = '{run_id}'"
        return next(iter(self._client.search_runs([self._experiment()], query)), None)

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(self.experiment))
            except MlflowException:  # another run may have made it meanwhile
                found = self._client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        return str(found.experiment_id)
