import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transferlab import run as running
from transferlab.errors import UserError
from transferlab.planning import Plan
from transferlab.run import execute
from transferlab.trackers.base import NOTHING, TrackedRun, require_package
from transferlab.trackers.mlflow import MLflow
from transferlab.trackers.tensorboard import TensorBoard
from transferlab.trackers.wandb import Wandb
from transferlab.trackers.wandb_files import highest_step, rows

MakePlan = Callable[..., Plan]


def broken(*_: Any) -> None:
    raise RuntimeError("out of luck")


def test_tensorboard_gets_curves_and_final_scores(make_plan: MakePlan) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    plan = make_plan("tracker=tensorboard")
    record = execute(plan)
    folder = plan.directory / "tensorboard"
    assert list(folder.glob("events.out.tfevents*"))
    events = event_accumulator.EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"train_loss", "lr", "validation_accuracy", "final/test_accuracy"} <= set(tags)
    assert [e.step for e in events.Scalars("train_loss")] == [1, 2, 3]
    (final,) = events.Scalars("final/test_accuracy")
    assert final.value == pytest.approx(record["metrics"]["test"]["accuracy"])


def test_tensorboard_is_closed_when_the_run_fails(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setattr(running, "fit", broken)
    plan = make_plan("tracker=tensorboard")
    assert execute(plan)["status"] == "failed"
    assert list((plan.directory / "tensorboard").glob("events.out.tfevents*"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-own"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield wandb
    wandb.teardown()


def test_wandb_offline_holds_one_finished_run_a_run(
    make_plan: MakePlan, offline: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    plan = make_plan("tracker=wandb", "name=mystudy")
    record = execute(plan)
    assert record["status"] != "failed", record["reason"]
    content = stored(plan)
    assert b"mystudy" in content
    assert b"validation_accuracy" in content
    assert b"test_accuracy" in content
    assert offline.run is None

    monkeypatch.setattr(running, "fit", broken)
    failing = make_plan("tracker=wandb", "name=mystudy", "seed=8")
    assert execute(failing)["status"] == "failed"
    assert offline.run is None, "a run that fails is finished too"
    assert b"mystudy" in stored(failing)
    assert "wandb" not in "".join(capfd.readouterr())


def stored(plan: Plan) -> bytes:
    importlib.import_module("wandb").teardown()  # returns when all is written
    (folder,) = (plan.directory / "wandb").glob("offline-run-*")
    assert folder.name.endswith(plan.run_id)
    return (folder / f"run-{plan.run_id}.wandb").read_bytes()


def tracked(folder: Path) -> TrackedRun:
    settings = {"source": "glyphs", "shots": 5, "fraction": None, "metric": "accuracy"}
    return TrackedRun("abc", "one", "mystudy", "replicate", folder, settings)


def test_tensorboard_goes_on_after_what_is_whole_on_disk(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    first = TensorBoard()
    assert first.open(tracked(tmp_path)) == NOTHING
    for step in range(1, 6):
        first.log({"loss": 1 / step}, step)
    first.close({}, failed=True)
    (path,) = (tmp_path / "tensorboard").iterdir()
    path.write_bytes(path.read_bytes()[:-3])  # killed while it wrote the last one

    second = TensorBoard()
    assert second.open(tracked(tmp_path)) == 4
    for step in range(5, 8):
        second.log({"loss": 1 / step}, step)
    second.close({"test_accuracy": 0.5, "status": "done"}, failed=False)
    third = TensorBoard()
    assert third.open(tracked(tmp_path)) == 7
    third.close({"test_accuracy": 0.5, "status": "done"}, failed=False)

    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6, 7]
    assert len(events.Scalars("final/test_accuracy")) == 1
    columns = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"glyphs" in columns
    assert b"source" in columns


def test_wandb_offline_goes_on_after_what_is_on_disk(offline: Any, tmp_path: Path) -> None:
    folder = tmp_path / "wandb"
    assert highest_step(folder, "abc") == NOTHING
    first = Wandb()
    assert first.open(tracked(tmp_path)) == NOTHING
    logged = {step: {"loss": 1 / step, "text": float(step)} for step in range(1, 2000)}
    for step, values in logged.items():
        first.log(values, step)
    first.close({"test_accuracy": 0.5}, failed=True)
    offline.teardown()  # returns when wandb's own process has written all
    (path,) = folder.glob("offline-run-*-abc/run-abc.wandb")
    assert path.stat().st_size > 3 * 32768, "entries that go over the end of a block are read too"
    found = {row["_step"]: {k: row[k] for k in ("loss", "text")} for row in rows(path)}
    assert found == logged
    assert Wandb().open(tracked(tmp_path)) == 1999


def test_torn_files_of_wandb_hold_what_came_before(offline: Any, tmp_path: Path) -> None:
    tracker = Wandb()
    tracker.open(tracked(tmp_path))
    for step in (1, 2, 3):
        tracker.log({"loss": 1 / step}, step)
    tracker.close({}, failed=False)
    offline.teardown()
    (path,) = (tmp_path / "wandb").glob("offline-run-*-abc/run-abc.wandb")
    content = path.read_bytes()
    torn = tmp_path / "torn.wandb"
    told = []
    for length in range(0, len(content), 7):
        torn.write_bytes(content[:length])
        told.append([row["_step"] for row in rows(torn)])
    assert told == sorted(told)
    assert told[0] == []
    assert {len(steps) for steps in told} == {0, 1, 2, 3}
    torn.write_bytes(b"something else altogether")
    with pytest.raises(ValueError, match=r"torn\.wandb does not begin like"):
        list(rows(torn))


def test_mlflow_without_a_server_is_told_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match=r"Set tracker\.mlflow\.tracking_uri, for example"):
        MLflow()


def test_a_tracker_that_is_not_installed_is_told_with_the_remedy() -> None:
    with pytest.raises(UserError, match=r"needs no_such_package: pip install 'transferlab\[track"):
        require_package("no_such_package", "odd")
