from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transferlab import run as running
from transferlab.planning import Plan
from transferlab.run import execute

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
    (folder,) = (plan.directory / "wandb").glob("offline-run-*")
    assert folder.name.endswith(plan.run_id)
    return (folder / f"run-{plan.run_id}.wandb").read_bytes()
