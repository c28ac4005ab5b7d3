"""Every head survives its run: what is reloaded says what was measured, to the last digit kept."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from transferlab.assembling import build_model
from transferlab.config import config_folder
from transferlab.planning import Plan
from transferlab.prediction import predict
from transferlab.run import execute

HEADS = sorted(path.stem for path in (config_folder() / "head").glob("*.yaml"))
OWN = """
import torch

class Net(torch.nn.Module):
    def __init__(self, width: int = 8):
        super().__init__()
        conv = torch.nn.Conv2d(3, width, 4, 4)
        self.stem = torch.nn.Sequential(conv, torch.nn.BatchNorm2d(width))
        self.top = torch.nn.Conv2d(width, 2 * width, 2, 2)

    def forward(self, images):
        return self.top(self.stem(images).relu()).relu()
"""
BACKBONES = {
    "test_resnet": ("backbone=test_resnet",),
    "test_vit": ("backbone=timm", "backbone.name=test_vit", "backbone.image_size=32"),
    "module": (
        "backbone=module", "backbone.module._target_=own_net.Net", "backbone.module.width=16",
        "backbone.image_size=32", "allowed_packages=[own_net]",
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _own_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_net.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_reloaded_runs_give_the_logits_that_were_recorded(
    backbone: str, head: str, make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    solved = head in ("knn", "logistic", "ridge")
    strategy = "feature_extraction" if solved else "fine_tune"
    plan = make_plan(
        *BACKBONES[backbone], f"head={head}", f"strategy={strategy}",
        "checkpoint.keep=last", "optimizer.lr=0.01", "budget.steps=20",
    )  # fmt: skip
    record = execute(plan)
    # few steps may leave a head no better than chance, which a record calls diverged
    assert record["status"] in ("done", "diverged"), record
    frame = pd.read_parquet(plan.directory / "predictions.parquet")
    frame = frame[frame["split"] == "validation"]
    logits = torch.tensor(np.stack(frame["logits"].to_list()).astype(np.float64))
    folder = tmp_path / "images"
    folder.mkdir()
    for row, image in enumerate(plan.data.store.images(plan.data.splits.validation)):
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        Image.fromarray(pixels).save(folder / f"{row:04d}.png")
    own = ["own_net"] if backbone == "module" else []
    found = predict(plan.directory, [folder], tmp_path / "out.csv", own)
    columns = [name for name in found.columns if name.startswith("p(")]
    np.testing.assert_allclose(found[columns], logits.softmax(dim=1), atol=1e-5)
    assert found[columns].std(axis=0).max() > 1e-4, "the head tells images apart"


@pytest.mark.parametrize("head", HEADS)
def test_equal_seeds_give_equal_heads_whatever_the_backbone_starts_from(
    head: str, make_plan: Callable[..., Plan]
) -> None:
    plan = make_plan(f"head={head}", "strategy=feature_extraction")
    states = []
    for noise in (0, 1):
        torch.manual_seed(noise)
        states.append(build_model(plan.cfg, 10, 32).head.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
