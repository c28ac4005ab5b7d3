"""One run, one record: skipped when done, retried when failed, the same wherever it is made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from scipy.special import log_softmax

from transferlab import run as running
from transferlab import run_record
from transferlab.errors import UserError
from transferlab.planning import Plan
from transferlab.run import execute, finished, starting_weights
from transferlab.stats.metrics import accuracy, log_loss, macro_recall

MakePlan = Callable[..., Plan]
LEARNING = ("budget.steps=20", "batch_size=32", "optimizer.lr=0.01", "strategy=scratch",
            "target.max_validation=100")  # fmt: skip
"""Enough to be better than chance."""
HOPELESS = ("optimizer=sgd", "optimizer.lr=1000000", "budget.steps=4", "loss=focal")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Filled by the first test that needs a run, shared by those that only read it."""
    return {"folder": tmp_path_factory.mktemp("made")}


@pytest.fixture
def done(made: dict[str, Any], make_plan: MakePlan) -> tuple[Plan, dict[str, Any]]:
    plan = make_plan(*LEARNING, folder=made["folder"])
    return plan, execute(plan)


def test_a_run_leaves_its_files(done: tuple[Plan, dict[str, Any]]) -> None:
    plan, record = done
    assert record["status"] == "done"
    names = {str(p.relative_to(plan.directory)) for p in plan.directory.rglob("*") if p.is_file()}
    assert names >= {
        "run.json", "config.yaml", "predictions.parquet", "metrics.jsonl", "ledger.jsonl",
        "checkpoints/last.safetensors",
    }  # fmt: skip
    assert json.loads((plan.directory / "run.json").read_text())["run_id"] == plan.run_id
    assert OmegaConf.load(plan.directory / "config.yaml").budget.steps == 20
    lines = [json.loads(x) for x in (plan.directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train_loss" in line] == [*range(1, 21)]
    assert record["cost"]["training_multiply_adds"] > 0
    assert record["n_train"] == 50
    assert record["test_ids_sha256"]


def test_every_score_follows_from_the_predictions(done: tuple[Plan, dict[str, Any]]) -> None:
    plan, record = done
    table = pd.read_parquet(plan.directory / "predictions.parquet")
    assert table.columns.tolist() == [
        "item_id",
        "split",
        "label",
        "prediction",
        "log_prob",
        "logits",
    ]
    for split in ("validation", "test"):
        rows = table[table.split == split]
        assert len(rows) == record[f"n_{split}"]
        assert rows.item_id.is_unique
        logits = np.stack(rows.logits.to_list()).astype(np.float64)
        labels, found = rows.label.to_numpy(), record["metrics"][split]
        assert (logits.argmax(1) == rows.prediction).all()
        assert found["accuracy"] == accuracy(rows.prediction.to_numpy(), labels)
        assert found["macro_recall"] == macro_recall(rows.prediction.to_numpy(), labels)
        assert found["log_loss"] == pytest.approx(log_loss(log_softmax(logits, axis=1), labels))
        assert found["log_loss"] == pytest.approx(-rows.log_prob.mean())
    assert set(table.split) == {"validation", "test"}


def test_a_run_that_is_done_is_not_made_again(
    done: tuple[Plan, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, record = done
    before = {p: p.stat().st_mtime_ns for p in plan.directory.rglob("[!.]*.*")}
    monkeypatch.setattr(running, "fit", None)
    again = execute(plan)
    assert again["metrics"] == json.loads(json.dumps(record["metrics"]))
    assert {p: p.stat().st_mtime_ns for p in plan.directory.rglob("*.*") if p in before} == before


def test_two_places_give_the_same_bits(
    done: tuple[Plan, dict[str, Any]], make_plan: MakePlan, tmp_path: Path
) -> None:
    plan, record = done
    other = make_plan(*LEARNING, folder=tmp_path / "elsewhere")
    again = execute(other)
    assert other.directory != plan.directory
    assert json.dumps(again["metrics"]) == json.dumps(record["metrics"])
    assert json.dumps(again["curve"]) == json.dumps(record["curve"])
    weights = [load_file(p.directory / "checkpoints" / "last.safetensors") for p in (plan, other)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    tables = [(p.directory / "predictions.parquet").read_bytes() for p in (plan, other)]
    assert tables[0] == tables[1]


def test_streaming_and_validation_do_not_change_a_run(
    done: tuple[Plan, dict[str, Any]], make_plan: MakePlan, tmp_path: Path
) -> None:
    overrides = ("trainer.validations=3", "trainer.log_every=4", "trainer.data=stream")
    again = execute(make_plan(*LEARNING, *overrides, folder=tmp_path))
    assert again["run_id"] == done[1]["run_id"]
    assert again["metrics"] == done[1]["metrics"]
    assert len(again["curve"]) == 3


def test_a_failed_run_is_recorded_and_tried_again(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("out of luck\nand more")

    plan = make_plan(*LEARNING, "seed=77", "checkpoint.keep=none")
    with monkeypatch.context() as patch:
        patch.setattr(running, "fit", broken)
        record = execute(plan)
    assert (record["status"], record["reason"]) == ("failed", "RuntimeError: out of luck")
    assert "out of luck" in Path(record["log"]).read_text()
    assert record["metrics"] == {"validation": None, "test": None, "train": None}
    assert finished(plan.directory) is None
    again = execute(plan)
    assert again["status"] in ("done", "diverged")
    assert not list(plan.directory.glob("checkpoints/*"))


def test_a_run_is_made_again_for_the_weights_that_it_did_not_keep(make_plan: MakePlan) -> None:
    bare = make_plan(*LEARNING, "seed=78", "checkpoint.keep=none")
    first = execute(bare)
    kept = running.made(bare)
    assert kept is not None
    assert kept["metrics"] == first["metrics"]
    full = make_plan(*LEARNING, "seed=78", "checkpoint.keep=last", folder=bare.directory.parents[1])
    assert full.directory == bare.directory
    if first["status"] == "done":
        assert running.made(full) is None
    again = execute(full)
    assert again["metrics"] == first["metrics"]
    assert list(full.directory.glob("checkpoints/*.safetensors"))
    assert running.made(full) is not None


def test_a_loss_that_explodes_is_an_outcome(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(*HOPELESS)
    record = execute(plan)
    assert record["status"] == "diverged"
    assert "NaN or infinite at optimiser step" in record["reason"]
    assert json.loads((plan.directory / "run.json").read_text())["status"] == "diverged"
    assert not (plan.directory / "ledger.jsonl").exists()
    monkeypatch.setattr(running, "fit", None)
    assert execute(plan)["status"] == "diverged"


def test_a_record_cut_short_is_made_again(
    done: tuple[Plan, dict[str, Any]], tmp_path: Path
) -> None:
    whole = (done[0].directory / "run.json").read_text()
    (tmp_path / "run.json").write_text(whole[: len(whole) // 2])
    assert finished(tmp_path) is None
    (tmp_path / "run.json").write_text(whole)
    assert finished(tmp_path) is not None


def test_tuning_never_reads_the_test_split(make_plan: MakePlan) -> None:
    plan = make_plan(*LEARNING, "purpose=tune")
    record = execute(plan)
    assert record["metrics"]["test"] is None
    assert record["metrics"]["validation"] is not None
    assert record["baselines"] is None
    assert not (plan.directory / "ledger.jsonl").exists()
    table = pd.read_parquet(plan.directory / "predictions.parquet")
    assert set(table.split) == {"validation"}
    test = {plan.data.store.ids[p] for p in plan.data.splits.test}
    assert not test & set(table.item_id)


def test_the_ledger_is_written_before_the_test_split_is_read(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(*LEARNING, "seed=5")

    def stopped(*_: Any) -> None:
        lines = (plan.directory / "ledger.jsonl").read_text().splitlines()
        assert json.loads(lines[0])["run_id"] == plan.run_id
        assert (plan.directory / "checkpoints" / "last.safetensors").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(run_record, "gather", stopped)
    with pytest.raises(KeyboardInterrupt):
        execute(plan)
    assert finished(plan.directory) is None


def test_a_source_run_is_made_once_and_its_weights_are_used(
    make_plan: MakePlan, fresh_cache: Path
) -> None:
    source = ("source=glyphs", "source.dataset.per_class=4", "source.pretrain.budget.steps=2",
              "source.pretrain.batch_size=16", "source.max_validation=20")  # fmt: skip
    plans = [make_plan(*source, "strategy=feature_extraction", f"seed={seed}") for seed in (0, 1)]
    records = [execute(plan) for plan in plans]
    (folder,) = (fresh_cache / "runs").iterdir()
    assert {r["source_id"] for r in records} == {folder.name}
    written = (folder / "run.json").stat().st_mtime_ns
    weights = starting_weights(plans[0].cfg)
    assert weights is not None
    kept = load_file(plans[0].directory / "checkpoints" / "last.safetensors")
    for key, value in kept.items():
        if key.startswith("backbone."):
            assert torch.equal(value, weights[key]), key
    assert (folder / "run.json").stat().st_mtime_ns == written
    assert json.loads((folder / "run.json").read_text())["purpose"] == "source"


def test_a_source_that_does_not_train_is_the_users_to_mend(make_plan: MakePlan) -> None:
    plan = make_plan(
        "source=glyphs", "source.dataset.per_class=4", "source.pretrain.budget.steps=3",
        "source.pretrain.optimizer.lr=1e5", "source.pretrain.scheduler=null",
        "source.pretrain.optimizer._target_=torch.optim.SGD",
        "~source.pretrain.optimizer.betas", "~source.pretrain.optimizer.eps",
    )  # fmt: skip
    with pytest.raises(UserError, match=r"the source run on glyphs diverged.*source\.pretrain"):
        execute(plan)
    assert json.loads((plan.directory / "run.json").read_text())["status"] == "failed"


def test_a_checkpoint_of_other_classes_is_refused(make_plan: MakePlan, tmp_path: Path) -> None:
    import timm

    torch.save(timm.create_model("test_resnet", num_classes=12).state_dict(), tmp_path / "w.pt")
    given = ("source=checkpoint", f"source.path='{tmp_path / 'w.pt'}'")
    with pytest.raises(UserError, match=r"source\.classes=10.* has 12 rows"):
        execute(make_plan(*given, "source.classes=10"))
    assert execute(make_plan(*given, "source.classes=12"))["status"] in ("done", "diverged")
    with pytest.raises(UserError, match=r"backbone\.name"):
        execute(make_plan(*given, "backbone=resnet10t", "backbone.image_size=32"))


def test_class_weights_that_do_not_fit_the_data_are_refused(make_plan: MakePlan) -> None:
    with pytest.raises(UserError, match="expected 10 positive numbers"):
        execute(make_plan("loss.class_weights=[1.0,2.0]"))


def test_augmentation_and_further_metrics_reach_the_run(make_plan: MakePlan) -> None:
    f1 = "+metric.others.f1._target_=torchmetrics.classification.MulticlassF1Score"
    record = execute(make_plan("augmentation=light", f1))
    assert 0 <= record["metrics"]["test"]["f1"] <= 1
    assert record["curve"] != execute(make_plan())["curve"]
