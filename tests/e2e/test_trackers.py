"""Trackers under kills, on several devices, and of a study: against what wandb and MLflow store."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import distributed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1600),
    pytest.mark.xdist_group("trackers"),  # one server, one study
]
PROGRAM = Path(sys.executable).parent / "transferlab"
EVERY = 20
"""Optimiser steps between two checkpoints: what is sent lies above the last one."""
RUN = (
    "run", "source=none", "target.shots=5", "batch_size=8", "budget.steps=70", "optimizer.lr=1e-2",
    "trainer=cpu", "trainer.threads=1", "trainer.validations=7", "trainer.log_every=1",
    "target.max_validation=40", "backbone.image_size=16", f"checkpoint.every_steps={EVERY}",
    "output_dir=out", "name=mystudy", "trainer.precision=32-true",
)  # fmt: skip
START_SECONDS = 180


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep wandb on this machine; it writes what it has ten times a second."""
    pytest.importorskip("wandb")
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-own"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", "0.1")


@dataclass(frozen=True)
class Server:
    """An MLflow server, and where it keeps what it is sent."""

    address: str
    folder: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real MLflow server on SQLite."""
    for name in ("mlflow", "flask", "flask_cors", "sqlalchemy", "alembic"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"mlflow's server is missing: no {name}")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--workers", "1",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command, env=os.environ | settings, stdout=log, stderr=log, start_new_session=True
        )
    try:
        address, until = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
        while not answers(address):
            assert process.poll() is None, (folder / "log.txt").read_text()
            assert time.monotonic() < until, (folder / "log.txt").read_text()
            time.sleep(0.2)
        yield Server(address, folder)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture
def mlflow(server: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's own client, and the address where runs find the server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    return MlflowClient(server.address)


def lines(run: Path) -> dict[int, dict[str, float]]:
    """Return the values of each step in a run's own file."""
    found: dict[int, dict[str, float]] = {}
    for line in (run / "metrics.jsonl").read_text().split("\n")[:-1]:
        record = json.loads(line)
        found.setdefault(record.pop("step"), {}).update(record)
    return found


def the_run(folder: str = "out") -> Path:
    (found,) = (Path(folder) / "runs").iterdir()
    return found


def wandb_files(run: Path) -> list[Path]:
    return sorted((run / "wandb").glob(f"offline-run-*-{run.name}/run-{run.name}.wandb"))


def wandb_rows(path: Path) -> list[dict[str, Any]]:
    from transferlab.trackers.wandb_files import rows

    return list(rows(path))


def killed(*line: str, when: Callable[[Path], bool]) -> None:
    """Start a run and end it without notice once a condition on its folder holds."""
    with subprocess.Popen([PROGRAM, *line], stderr=subprocess.PIPE) as process:
        while not any(when(run) for run in Path("out/runs").glob("*")):
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def done(*line: str) -> None:
    made = subprocess.run([PROGRAM, *line], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert "tracker" not in made.stderr


def last_checkpoint(run: Path) -> int:
    return max((int(p.stem.split("-")[1]) for p in run.glob("resume/step-*.json")), default=0)


@pytest.mark.usefixtures("offline")
def test_wandb_directories_of_a_killed_run_are_one_history(place: Path) -> None:
    line = [*RUN, "tracker=[wandb,tensorboard]"]
    for before in (0, 1):

        def beyond(run: Path, before: int = before) -> bool:
            """Whether wandb has on disk what comes after a new checkpoint."""
            files = wandb_files(run)[before:]
            steps = [row["_step"] for path in files for row in wandb_rows(path)]
            return max(steps, default=0) > last_checkpoint(run) + 3 > EVERY * (before + 1)

        killed(*line, when=beyond)
        assert not (the_run() / "run.json").exists(), "killed too late"
    done(*line)
    run = the_run()
    record = json.loads((run / "run.json").read_text())
    assert len(record["resumed_at_steps"]) == 2
    files = wandb_files(run)
    assert len(files) == 3
    parts = [wandb_rows(path) for path in files]
    assert all(parts), "every process sent something"
    resumed = record["resumed_at_steps"]
    assert max(row["_step"] for row in parts[0]) > resumed[0], "steps were there to be sent twice"
    own = lines(run)
    sent = [row["_step"] for part in parts for row in part]
    assert sent == sorted(own) == list(range(1, 71))
    for row in (row for part in parts for row in part):
        assert {k: v for k, v in row.items() if k[0] != "_"} == own[row["_step"]]

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    for key in ("train_loss", "validation_accuracy"):
        assert [e.step for e in events.Scalars(key)] == [s for s in sorted(own) if key in own[s]]


def test_a_killed_run_is_one_run_of_mlflow(place: Path, mlflow: Any) -> None:
    line = [*RUN, "tracker=mlflow", "tracker.mlflow.experiment=killed"]
    for before in (1, 2):
        killed(*line, when=lambda run, n=before: max(lines_or_none(run)) > EVERY * n + 7)
    done(*line)
    run, own = the_run(), lines(the_run())
    (found,) = mlflow.search_runs([mlflow.get_experiment_by_name("killed").experiment_id])
    assert found.data.tags["transferlab.run_id"] == run.name
    assert found.data.tags["transferlab.study"] == "mystudy"
    assert found.info.status == "FINISHED"
    assert found.data.params["strategy"] == "scratch"
    for key in ("train_loss", "lr", "validation_accuracy"):
        history = mlflow.get_metric_history(found.info.run_id, key)
        assert {m.step: m.value for m in history} == {s: v[key] for s, v in own.items() if key in v}
        assert len(history) == len({m.step for m in history})
    record = json.loads((run / "run.json").read_text())
    assert found.data.metrics["final/test_accuracy"] == record["metrics"]["test"]["accuracy"]


def lines_or_none(run: Path) -> dict[int, Any]:
    return lines(run) if (run / "metrics.jsonl").is_file() and lines(run) else {0: {}}


@pytest.mark.usefixtures("offline")
@pytest.mark.skipif(not distributed.is_gloo_available(), reason="gloo is missing")
def test_one_rank_alone_has_trackers(place: Path) -> None:
    done(*RUN, "trainer.devices=2", "tracker=wandb", "budget.steps=10")
    (path,) = wandb_files(the_run())
    assert len(list((the_run() / "wandb").glob("*run-*"))) == 1
    assert [row["_step"] for row in wandb_rows(path)] == list(range(1, 11))


def test_a_server_that_is_gone_costs_a_line(place: Path) -> None:
    pytest.importorskip("mlflow")
    address = "tracker.mlflow.tracking_uri=http://127.0.0.1:9"  # discard: nobody listens
    made = subprocess.run(
        [PROGRAM, *RUN, "tracker=mlflow", address], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    assert len(made.stderr.splitlines()) == 1
    assert "tracker mlflow failed when it was opened" in made.stderr
    assert len(lines(the_run())) == 70


NAMES = ("mrs-okafor", "mr-lindqvist")
"""What the names of image files begin with."""
STUDY = """
# @package _global_
defaults:
  - override /target: image_folder
  - override /hydra/sweeper: study
  - override /tracker: [wandb, tensorboard, mlflow]
name: animals
hydra: {mode: MULTIRUN}
target: {root: images, shots: 8}
study:
  arms:
    transfer: [source=glyphs, strategy=fine_tune, source.dataset.per_class=12,
               source.pretrain.budget.steps=4, source.pretrain.batch_size=16]
  tune: {grid: {optimizer.lr: [1.0e-2, 3.0e-2]}, seeds: 1, extend: 0}
  seeds: 2
"""
QUICK = (
    "trainer=cpu", "trainer.threads=1", "trainer.validations=1", "backbone.image_size=16",
    "budget.steps=20", "batch_size=8", "optimizer.lr=1e-2", "trainer.precision=32-true",
)  # fmt: skip


def draw(root: Path) -> None:
    rng = np.random.default_rng(0)
    for index, (animal, name) in enumerate(zip(("ant", "bee"), NAMES, strict=True)):
        (root / animal).mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(150 * index, 150 * index + 90, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(root / animal / f"{name}-{number}.png")


@dataclass(frozen=True)
class Made:
    """A study that was made with three trackers.

    Attributes:
        out: its folder.
        again: runs the same command once more.
        runs: of MLflow, by the id of ours.
        client: MLflow's.
    """

    out: Path
    again: Callable[[], None]
    runs: dict[str, Any]
    client: Any

    def arm(self) -> tuple[list[str], list[float]]:
        """Return the runs of the arm that was judged, and their gains."""
        (verdict,) = self.read("verdicts.json")["verdicts"]
        arms = self.read("study.json")["cells"][0]["arms"]
        (arm,) = [arm for arm in arms if arm["id"] == verdict["arm"]]
        return [run["run_id"] for run in arm["runs"]], verdict["per_replicate_delta"]

    def read(self, name: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.out / name).read_text())
        return record


@pytest.fixture(scope="module")
def made(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    pytest.importorskip("wandb")
    from mlflow import MlflowClient

    place = tmp_path_factory.mktemp("study")
    draw(place / "images")
    (place / "conf/experiment").mkdir(parents=True)
    (place / "conf/experiment/animals.yaml").write_text(STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("MLFLOW_TRACKING_URI", server.address)
        patch.setenv("TRANSFERLAB_CACHE", str(place / "cache"))
        patch.setenv("WANDB_MODE", "offline")
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(place / "staged"))

        def again() -> None:
            done("run", "experiment=animals", *QUICK, "tracker.mlflow.experiment=animals")

        again()
        client = MlflowClient(server.address)
        runs = client.search_runs([client.get_experiment_by_name("animals").experiment_id])
        by_id = {run.data.tags["transferlab.run_id"]: run for run in runs}
        assert len(by_id) == len(runs), "one run of MLflow for one of ours"
        yield Made(place / "outputs/animals", again, by_id, client)


def test_a_study_is_a_run_with_its_tables_and_report(made: Made, tmp_path: Path) -> None:
    (own,) = [run for run_id, run in made.runs.items() if run_id.startswith("study-")]
    folder = Path(made.client.download_artifacts(own.info.run_id, "", str(tmp_path)))
    assert {p.name for p in folder.iterdir()} == {"verdicts.csv", "gains.csv", "report.html"}
    assert (folder / "report.html").read_text() == (made.out / "report.html").read_text()
    assert own.data.tags["mlflow.note.content"] == made.read("verdicts.json")["summary"]
    tables = "".join(p.read_text() for p in (made.out / "wandb").rglob("*.table.json"))
    run_ids, _ = made.arm()
    assert json.dumps(made.read("verdicts.json")["verdicts"][0]["sentence"]) in tables
    assert all(run_id in tables for run_id in run_ids)
    assert list((made.out / "wandb").rglob("*.html"))
    assert list((made.out / "tensorboard").iterdir())


def test_runs_get_their_gain_once_the_study_is_judged(made: Made) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_ids, gains = made.arm()
    assert len(gains) == 2
    found = {i: r.data.metrics["gain"] for i, r in made.runs.items() if "gain" in r.data.metrics}
    assert found == dict(zip(run_ids, gains, strict=True))
    for run_id, gain in found.items():
        events = EventAccumulator(str(made.out / "runs" / run_id / "tensorboard"))
        events.Reload()
        assert [e.value for e in events.Scalars("final/gain")] == [pytest.approx(gain)]


def test_every_run_has_flat_columns_and_its_study(made: Made) -> None:
    recorded = {path.parent.name: path for path in made.out.glob("runs/*/run.json")}
    assert recorded.keys() < made.runs.keys()
    for run_id, path in recorded.items():
        record, (stored,) = json.loads(path.read_text()), wandb_files(path.parent)
        assert made.runs[run_id].data.tags["transferlab.study"] == "animals"
        content = stored.read_bytes()
        assert b"animals" in content
        for key in ("source", "target", "shots", "strategy", "seed", "purpose"):
            assert made.runs[run_id].data.params[key] == str(record[key])
            assert str(record[key]).encode() in content


def test_no_image_is_named_in_what_is_sent(made: Made, server: Server) -> None:
    place = made.out.parent.parent
    sent = [*(place / "staged").rglob("*"), *server.folder.rglob("*")]
    sent += [*made.out.rglob("wandb/**/*"), *made.out.rglob("tensorboard/*")]
    read = [path.read_bytes() for path in sent if path.is_file()]
    assert len(read) > 20
    assert not [name for name in NAMES if any(name.encode() in content for content in read)]
    predictions = b"".join(p.read_bytes() for p in made.out.rglob("predictions.parquet"))
    assert all(name.encode() in predictions for name in NAMES), "they are there to be found"


def test_a_study_is_sent_once(made: Made) -> None:
    before = sorted((made.out / "wandb").rglob("*"))
    made.again()
    assert sorted((made.out / "wandb").rglob("*")) == before
