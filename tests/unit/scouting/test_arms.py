import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from omegaconf import DictConfig
from safetensors.torch import save_file

from transferlab.datasets.store import ImageStore
from transferlab.errors import UserError
from transferlab.planning import Plan, plan_run
from transferlab.records import write_json
from transferlab.scouting.arms import predict_arms
from transferlab.transferability.scoring import SCORES

Compose = Callable[..., DictConfig]
MakePlan = Callable[..., Plan]
QUICK = ("trainer=cpu", "trainer.threads=1", "batch_size=8", "target.shots=4", "budget.steps=3",
         "target.max_validation=20")  # fmt: skip
SOURCE = ("source.dataset.per_class=4", "source.pretrain.budget.steps=2",
          "source.pretrain.batch_size=8")  # fmt: skip


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=7).state_dict(), path)
    return path


@pytest.fixture
def arm(compose: Compose, tmp_path: Path) -> Compose:
    def make(*overrides: str) -> DictConfig:
        return compose(*QUICK, f"output_dir={tmp_path}", *overrides)

    return make


@pytest.mark.slow
def test_a_record_a_source_whatever_the_arms(arm: Compose, tmp_path: Path) -> None:
    arms = [arm("source=none", "strategy=scratch")]
    for strategy in ("fine_tune", "feature_extraction"):
        arms += [arm(f"source={s}", *SOURCE, f"strategy={strategy}") for s in ("glyphs", "noise")]
    found = predict_arms(arms, cell="target.shots=4")
    assert [(one["source"], one["cell"]) for one in found] == [
        ("glyphs", "target.shots=4"), ("noise", "target.shots=4"),
    ]  # fmt: skip
    for one in found:
        assert (one["n_items"], one["n_classes"], one["smallest_class"]) == (40, 10, 4)
        assert tuple(one["scores"]) == SCORES
        assert one["scores"]["leep"]["value"] < 0
        assert one["gap"]["proxy_a"] > 1
        assert one["gap"]["frechet"] > one["gap"]["frechet_floor"] > 0
        assert one["neighbours"]["k"] == 1
        near = one["neighbours"]
        margin = near["source"] - max(near["random_init"], near["raw_pixels"])
        assert one["alarms"]["w1"]["value"] == pytest.approx(margin)
    assert found[0]["neighbours"]["raw_pixels"] == found[1]["neighbours"]["raw_pixels"]
    assert found[0]["source_id"] == plan_run(arms[1]).identity["source"]
    write_json(tmp_path / "found.json", found)
    assert json.loads((tmp_path / "found.json").read_text())[0]["source"] == "glyphs"


def test_only_training_images_are_read(
    arm: Compose, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = arm("source=checkpoint", f"source.path={weights}")
    plan, read, images = plan_run(cfg), set(), ImageStore.images

    def noting(store: ImageStore, positions: np.ndarray) -> np.ndarray:
        read.update(positions.tolist())
        return images(store, positions)

    monkeypatch.setattr(ImageStore, "images", noting)
    (found,) = predict_arms([cfg])
    assert read == set(plan.train.tolist())
    assert found["gap"] is None
    assert "not at hand" in found["gap_reason"]


def test_it_is_the_same_again_and_follows_the_seed_of_the_subset(
    arm: Compose, weights: Path
) -> None:
    cfg = arm("source=checkpoint", f"source.path={weights}")
    other = arm("source=checkpoint", f"source.path={weights}", "seed=1")
    (one,) = predict_arms([cfg])
    again, three = predict_arms([cfg, other])
    assert one == again
    assert one["scores"]["logme"] != three["scores"]["logme"]


def test_one_item_a_class_leaves_the_first_alarm_open(arm: Compose, weights: Path) -> None:
    (found,) = predict_arms([arm("source=checkpoint", f"source.path={weights}", "target.shots=1")])
    assert found["alarms"]["w1"]["fires"] is None
    assert found["scores"]["knn_1"]["value"] is None


def test_damaged_weights_are_told(arm: Compose, tmp_path: Path) -> None:
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    key = next(key for key in state if key.endswith("weight"))
    state[key] = torch.full_like(state[key], float("nan"))
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match="40 of 40 target images are NaN"):
        predict_arms([arm("source=checkpoint", f"source.path={tmp_path / 'bad.safetensors'}")])
