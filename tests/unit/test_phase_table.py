import pytest
import torch
from omegaconf import OmegaConf

from transferlab.backbones.timm import create_backbone, feature_width
from transferlab.callbacks.layerwise_lr_decay import LayerwiseLRDecay
from transferlab.callbacks.phases import Phases, everything
from transferlab.errors import UserError
from transferlab.heads.linear import LinearHead
from transferlab.model import TransferModel
from transferlab.phase_table import Row, phase_rows

VIT_LADDER = (
    0.02376, 0.03168, 0.04224, 0.05631, 0.07508, 0.10011, 0.13348, 0.17798, 0.2373, 0.31641,
    0.42188, 0.5625, 0.75, 1.0,
)  # fmt: skip
"""timm 1.0's param_groups_layer_decay(vit_base_patch16_224, layer_decay=0.75)."""


def build(name: str) -> TransferModel:
    with torch.device("meta"):
        backbone = create_backbone(name, {})
        return TransferModel(name, backbone, LinearHead(feature_width(backbone), 10))


def table(name: str, *callbacks, steps: int = 100, epoch: float = 10) -> list[Row]:
    cfg = OmegaConf.create(
        {"budget": {"steps": steps}, "optimizer": {"lr": 1e-3, "weight_decay": 0.05}}
    )
    return phase_rows(cfg, build(name), callbacks, epoch)


def test_vit_b_shows_the_published_ladder() -> None:
    rows = table("vit_base_patch16_224", LayerwiseLRDecay(0.75), everything())
    assert len(rows) == 14
    for row, scale in zip(rows, VIT_LADDER, strict=True):
        assert row.rates == pytest.approx((1e-3 * scale, 1e-3 * scale), rel=3e-4)
        assert row.trained == row.parameters
    assert sum(row.parameters for row in rows) == sum(
        p.numel() for p in build("vit_base_patch16_224").parameters()
    )
    assert [row.group for row in rows] == ["stem", *(f"blocks.{k}" for k in range(12)), "head"]
    assert rows[0].weight_decay == (0.0, 0.05)


def test_a_schedule_of_two_phases() -> None:
    phases = Phases(
        {
            "probe": {"train": ["head"], "until": {"share": 0.3}},
            "top": {"train": ["layer4"], "lr": 1e-5, "norms": "frozen"},
        }
    )
    rows = table("resnet18", phases)
    assert len(rows) == 12
    probe = {row.group: row for row in rows if row.phase == "probe"}
    top = {row.group: row for row in rows if row.phase == "top"}
    assert {row.steps for row in probe.values()} == {"0 to 30"}
    assert {row.steps for row in top.values()} == {"30 to 100"}
    assert {group for group, row in probe.items() if row.trained} == {"head"}
    assert {group for group, row in top.items() if row.trained} == {"head", "layer4"}
    assert 0 < top["layer4"].trained < top["layer4"].parameters  # its norms are frozen
    assert top["layer4"].rates == (1e-5, 1e-5)
    assert top["head"].rates == (1e-3, 1e-3)
    assert top["layer4"].norms == probe["layer4"].norms == "eval"
    assert probe["layer1"].rates is None


@pytest.mark.parametrize(
    ("norms", "word"),
    [
        ("follow", "eval"), ("frozen", "eval"), ("adapt_statistics", "statistics"),
        ("train_affine", "affine"), ("train", "train"),
    ],
)  # fmt: skip
def test_norm_policies_have_words(norms: str, word: str) -> None:
    rows = table("resnet18", Phases({"head": {"train": ["head"], "norms": norms}}))
    assert {row.norms for row in rows if row.group != "head"} == {word}


def test_an_end_that_a_plateau_decides_is_open() -> None:
    phases = Phases(
        {
            "probe": {"train": ["head"], "until": {"plateau": {"patience": 2}}},
            "all": {"train": ["all"]},
        }
    )
    steps = [row.steps for row in table("resnet18", phases) if row.group == "head"]
    assert steps == ["0 to ?", "? to 100"]


def test_a_schedule_that_does_not_fit_fails_before_training() -> None:
    with pytest.raises(UserError, match="layer9"):
        table("resnet18", Phases({"all": {"train": ["layer9"]}}))
