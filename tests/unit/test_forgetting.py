"""What stands still is not forgotten, to the last bit; what moves is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from transferlab import forgetting as measuring
from transferlab.errors import UserError
from transferlab.forgetting import find_origin, wants_forgetting
from transferlab.planning import Plan, plan_source
from transferlab.run import execute, finished

MakePlan = Callable[..., Plan]
LETTERS = (
    "source=glyphs", "+source.dataset.letters=ABCDE", "source.dataset.per_class=40",
    "source.pretrain.budget.steps=60", "source.pretrain.batch_size=32", "backbone.image_size=16",
)  # fmt: skip
"""A source run of seconds that learns its five letters."""
MEASURED = (*LETTERS, "forgetting=true", "target.max_validation=60")


def weights(directory: Path) -> dict[str, torch.Tensor]:
    state = load_file(directory / "checkpoints" / "last.safetensors")
    return {name: value for name, value in state.items() if name.startswith("backbone.")}


def test_frozen_features_forget_nothing_to_the_last_bit(make_plan: MakePlan) -> None:
    plan = make_plan(*MEASURED, "strategy=feature_extraction", "budget.steps=10")
    found = execute(plan)["forgetting"]
    source = plan_source(plan.cfg)
    before, after = weights(source.directory), weights(plan.directory)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert found["source_run"] == source.run_id
    assert found["n"] == len(source.data.splits.validation)
    assert found["n_probe"] == len(source.train)
    assert found["source_accuracy"]["before"] > 0.5
    assert found["F_head"] == found["F_probe"] == 0.0
    groups = ["stem", "layer1", "layer2", "layer3", "layer4"]
    assert [entry["group"] for entry in found["drift"]] == groups
    for entry in found["drift"]:
        assert entry["n"] == 60
        assert abs(entry["cka"] - 1) < 1e-12
        assert abs(entry["unbiased_cka"] - 1) < 1e-12


def test_the_source_accuracy_before_is_that_of_the_source_run(make_plan: MakePlan) -> None:
    plan = make_plan(*MEASURED, "strategy=feature_extraction", "budget.steps=10")
    found = execute(plan)["forgetting"]
    known = execute(plan_source(plan.cfg))["metrics"]["validation"]["accuracy"]
    assert found["source_accuracy"] == {"before": known, "after": known}


def test_norm_statistics_alone_change_what_a_frozen_backbone_says(make_plan: MakePlan) -> None:
    norms = "strategy.callbacks.phases.phases.norms.norms=adapt_statistics"
    plan = make_plan(*MEASURED, "strategy=norm_tuning", norms, "budget.steps=10")
    found = execute(plan)["forgetting"]
    before, after = weights(plan_source(plan.cfg).directory), weights(plan.directory)
    learnt = [name for name in before if not name.endswith(("mean", "var", "tracked"))]
    assert all(torch.equal(before[name], after[name]) for name in learnt)  # no weight has moved
    assert found["F_head"] != 0.0
    drift = found["drift"]
    assert all(entry["cka"] < 1 - 1e-6 for entry in drift[1:])
    assert all(entry["unbiased_cka"] < 1 - 1e-6 for entry in drift[1:])


def test_a_large_rate_forgets_and_the_last_layers_move_most(make_plan: MakePlan) -> None:
    plan = make_plan(*MEASURED, "strategy=fine_tune", "budget.steps=15", "optimizer.lr=0.03")
    found = execute(plan)["forgetting"]
    scored = found["source_accuracy"]
    assert found["F_head"] > 0.1
    assert found["F_head"] == scored["before"] - scored["after"]
    assert found["F_probe"] == found["probe_accuracy"]["before"] - found["probe_accuracy"]["after"]
    assert found["F_probe"] < found["F_head"]  # a new probe reads more than the old head does
    assert found["drift"][-1]["cka"] < 0.9


def test_parts_below_the_thawed_ones_stand_still(make_plan: MakePlan) -> None:
    plan = make_plan(*MEASURED, "strategy=surgical_last", "budget.steps=10", "optimizer.lr=0.03")
    drift = execute(plan)["forgetting"]["drift"]
    assert all(abs(entry["cka"] - 1) < 1e-12 for entry in drift[:3])
    assert drift[-1]["cka"] < 1 - 1e-6


def test_adapters_predict_as_the_run_does(make_plan: MakePlan) -> None:
    pytest.importorskip("peft")
    plan = make_plan(*MEASURED, "strategy=lora", "budget.steps=10", "optimizer.lr=0.03")
    drift = execute(plan)["forgetting"]["drift"]
    assert abs(drift[0]["cka"] - 1) < 1e-12  # no adapter in the stem
    assert drift[-1]["cka"] < 1 - 1e-6


@pytest.mark.slow
def test_a_head_on_the_map_leaves_parts_as_they_were_in_the_source(make_plan: MakePlan) -> None:
    backbone = ("backbone=mobilenetv3_small_050", "backbone.image_size=32")  # conv_head is left out
    plan = make_plan(*MEASURED[:-1], *backbone, "target.max_validation=20", "head=attention_pool",
                     "strategy=feature_extraction", "source.pretrain.budget.steps=2")  # fmt: skip
    assert not any("conv_head" in name for name in weights_after(plan))
    found = execute(plan)["forgetting"]
    assert found["F_head"] == found["F_probe"] == 0.0
    assert all(abs(e["cka"] - 1) < 1e-12 for e in found["drift"] if e["cka"] is not None)


def weights_after(plan: Plan) -> list[str]:
    execute(plan)
    return list(weights(plan.directory))


def test_a_run_s_directory_is_a_source_too(make_plan: MakePlan, tmp_path: Path) -> None:
    glyphs = ("target=glyphs", "+target.dataset.letters=ABC", "target.dataset.per_class=12")
    first = make_plan(*glyphs, "backbone.image_size=16", "strategy=scratch")
    made = execute(first)
    plan = make_plan("source=checkpoint", f"source.path='{first.directory}'", "forgetting=true",
                     "backbone.image_size=16", "strategy=feature_extraction")  # fmt: skip
    found = execute(plan)["forgetting"]
    assert found["source_run"] == first.run_id
    assert found["source_accuracy"]["before"] == made["metrics"]["validation"]["accuracy"]
    assert found["n_probe"] == made["n_train"]  # the shots that it was trained on
    assert found["F_head"] == 0.0


@pytest.mark.parametrize("lost", ["config.yaml", "run.json", "data"])
def test_a_source_that_can_not_be_opened_again_is_told_before_training(
    lost: str, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    glyphs = ("target=glyphs", "+target.dataset.letters=ABC", "target.dataset.per_class=12")
    first = make_plan(*glyphs, "backbone.image_size=16", "strategy=scratch", folder=tmp_path / "x")
    execute(first)
    if lost == "data":
        config = first.directory / "config.yaml"
        config.write_text(config.read_text().replace("per_class: 12", "per_class: 13"))
    else:
        (first.directory / lost).unlink()
    plan = make_plan("source=checkpoint", f"source.path='{first.directory}'", "forgetting=true",
                     "backbone.image_size=16", "strategy=feature_extraction")  # fmt: skip
    monkeypatch.setattr("transferlab.run.fit", None)
    told = "images changed" if lost == "data" else "not the directory of a finished run"
    with pytest.raises(UserError, match=told):
        execute(plan)


def test_a_run_that_did_not_measure_it_is_made_again_when_asked(make_plan: MakePlan) -> None:
    options = (*LETTERS, "target.max_validation=60", "strategy=feature_extraction", "seed=3")
    plain, asking = make_plan(*options), make_plan(*options, "forgetting=true")
    assert plain.run_id == asking.run_id  # it changes no result
    without = execute(plain)
    assert without["forgetting"] is None
    found = execute(asking)
    assert found["forgetting"]["F_head"] == 0.0
    assert found["metrics"] == without["metrics"]
    assert execute(plain)["forgetting"] == found["forgetting"]  # and kept when nobody asks
    known: Any = finished(plain.directory)
    assert known["forgetting"] == found["forgetting"]


@pytest.mark.parametrize("purpose", ["tune", "source"])
def test_tuning_and_source_runs_do_not_measure_it(purpose: str, make_plan: MakePlan) -> None:
    plan = make_plan(*MEASURED)
    assert wants_forgetting(plan.cfg)
    assert not wants_forgetting(plan_source(plan.cfg).cfg)
    plan.cfg.purpose = purpose
    assert not wants_forgetting(plan.cfg)


def test_the_test_splits_are_left_alone(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    served = measuring._Views._served

    def watching(self: Any, data: Any, positions: Any) -> Any:
        seen.append((data, set(positions.tolist())))
        return served(self, data, positions)

    monkeypatch.setattr(measuring._Views, "_served", watching)
    plan = make_plan(*MEASURED, "strategy=feature_extraction", "seed=4")
    execute(plan)
    assert {id(data) for data, _ in seen} == {id(plan.data), id(find_origin(plan.cfg).data)}
    assert not any(positions & set(data.splits.test.tolist()) for data, positions in seen)
