"""Every parameter has one place, every word means what it says, and frozen modules stand still."""

from itertools import chain

import pytest
import timm
import torch
from lightning import LightningModule
from torch import Tensor, nn

from transferlab.backbones.timm import create_backbone, feature_width
from transferlab.errors import UserError
from transferlab.heads.linear import LinearHead
from transferlab.model import TransferModel
from transferlab.parts import Parts, is_norm
from transferlab.phase_plan import PhasePlan
from transferlab.phase_reading import parse_phases

NORMS = ("frozen", "adapt_statistics", "train_affine", "train")


def build(name: str, meta: bool = True, **kwargs) -> TransferModel:
    torch.manual_seed(0)
    with torch.device("meta" if meta else "cpu"):
        backbone = create_backbone(name, kwargs)
        return TransferModel(name, backbone, LinearHead(feature_width(backbone), 3))


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1))
        self.stem = nn.Conv2d(3, 4, 3)
        self.body = nn.Sequential(
            nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)),
            nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.body(self.stem(images)).mean((2, 3)) + self.token


class Own(LightningModule):
    """A user's own module: attributes backbone and head, and a parameter beside them."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(4, 2)
        self.temperature = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images)) * self.temperature


class Wrapped(LightningModule):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.net = timm.create_model(name, num_classes=3)


def sequential() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


STAGES = {
    "test_resnet": ["stem", "layer1", "layer2", "layer3", "layer4", "head"],
    "resnet50": ["stem", "layer1", "layer2", "layer3", "layer4", "head"],
    "vit_base_patch16_224": ["stem", *(f"blocks.{i}" for i in range(12)), "head"],
    "convnext_atto": ["stem", *(f"stages.{i}" for i in range(4)), "head"],
    "mobilenetv2_100": ["stem", *(f"blocks.{i}" for i in range(7)), "head"],
    "efficientnet_b0": ["stem", *(f"blocks.{i}" for i in range(7)), "head"],
}
BLOCKS = {
    "test_resnet": STAGES["test_resnet"],
    "resnet50": [
        "stem", *(f"layer{s}.{b}" for s, n in ((1, 3), (2, 4), (3, 6), (4, 3)) for b in range(n)),
        "head",
    ],
    "vit_base_patch16_224": STAGES["vit_base_patch16_224"],
    "convnext_atto": [
        "stem", *(f"stages.{s}.blocks.{b}" for s, n in enumerate((2, 2, 6, 2)) for b in range(n)),
        "head",
    ],
}  # fmt: skip
MODELS = {
    **{name: lambda name=name: build(name) for name in STAGES},
    "own sequential": lambda: Own(sequential()),
    "own nested": lambda: Own(Nested()),
    "classified resnet": lambda: Wrapped("test_resnet"),
    "classified vit": lambda: Wrapped("test_vit"),
    "classified convnext": lambda: Wrapped("test_convnext"),
}


@pytest.mark.parametrize("name", STAGES)
def test_stages_of_published_models(name: str) -> None:
    assert [group.name for group in Parts(build(name)).groups] == STAGES[name]


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_published_models(name: str) -> None:
    assert [group.name for group in Parts(build(name), "blocks").groups] == BLOCKS[name]


def test_members_of_groups() -> None:
    groups = {g.name: set(g.parameters) for g in Parts(build("resnet50")).groups}
    assert groups["stem"] == {
        "backbone.conv1.weight", "backbone.bn1.weight", "backbone.bn1.bias"
    }  # fmt: skip
    assert all(n.startswith("backbone.layer3.") for n in groups["layer3"])
    assert len(groups["layer3"]) == 57
    assert groups["head"] == {"head.weight", "head.bias"}
    vit = {g.name: set(g.parameters) for g in Parts(build("vit_base_patch16_224")).groups}
    assert "backbone.cls_token" in vit["stem"]
    assert "backbone.norm.weight" in vit["blocks.11"]
    atto = {g.name: set(g.parameters) for g in Parts(build("convnext_atto")).groups}
    assert "backbone.head.norm.weight" in atto["stages.3"], "it thaws with what it normalises"


def test_groups_of_a_module_of_ones_own() -> None:
    parts = Parts(Own(Nested()))
    groups = {g.name: set(g.parameters) for g in parts.groups}
    assert list(groups) == ["stem", "body", "head"]
    assert groups["stem"] == {"backbone.token", "backbone.stem.weight", "backbone.stem.bias"}
    assert groups["head"] == {"head.weight", "head.bias", "temperature"}
    assert [g.name for g in Parts(Own(Nested()), "blocks").groups][1:3] == ["body.0.0", "body.0.1"]
    assert [g.name for g in Parts(Own(sequential())).groups] == ["0", "1", "head"]


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("test_resnet", {"net.fc.weight", "net.fc.bias"}),
        ("test_vit", {"net.head.weight", "net.head.bias"}),
        ("test_efficientnet", {"net.classifier.weight", "net.classifier.bias"}),
        ("test_convnext", {"net.head.fc.weight", "net.head.fc.bias",
                           "net.head.norm.weight", "net.head.norm.bias"}),
    ],
)  # fmt: skip
def test_the_classifier_of_a_timm_model_is_the_head(name: str, head: set[str]) -> None:
    assert Parts(Wrapped(name)).head == head


@pytest.mark.parametrize("granularity", ["stages", "blocks"])
@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_lies_in_exactly_one_group(name: str, granularity) -> None:
    model = MODELS[name]()
    parts = Parts(model, granularity)
    listed = list(chain.from_iterable(g.parameters for g in parts.groups))
    assert sorted(listed) == sorted(n for n, _ in model.named_parameters())
    assert all(g.parameters for g in parts.groups)
    assert len({g.name for g in parts.groups}) == len(parts.groups)
    assert parts.head | parts.body == set(listed)
    assert not parts.head & parts.body


def test_a_module_without_a_head_is_refused() -> None:
    for module in (nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))):
        with pytest.raises(UserError, match="no head can be told"):
            Parts(module)


def names(parts: Parts, *selectors) -> set[str]:
    return {n for selector in selectors for n in parts.select(selector, "here")}


def test_words() -> None:
    model = build("test_resnet")
    parts = Parts(model)
    everything = {n for n, _ in model.named_parameters()}
    assert names(parts, "all") == everything
    assert names(parts, "head") == names(parts, -1) == names(parts, 5) == names(parts, "last 1")
    assert names(parts, "head") == {"head.weight", "head.bias"}
    assert names(parts, "body") == everything - names(parts, "head")
    assert names(parts, "layer4") == names(parts, 4) == names(parts, -2)
    assert names(parts, "last 2") == names(parts, "head", "layer4")
    assert names(parts, "last 6") == everything
    assert names(parts, "stem") == names(parts, 0)
    assert "backbone.layer4.0.conv1.weight" in names(parts, "layer4")
    norms = {
        f"{path}.{kind}"
        for path, m in model.named_modules()
        if isinstance(m, nn.BatchNorm2d)
        for kind in ("weight", "bias")
    }
    assert names(parts, "norms") == norms
    assert names(parts, "biases") == {n for n in norms if n.endswith("bias")}
    thirds = [names(parts, f"{t} third") for t in ("first", "middle", "last")]
    assert set.union(*thirds) == names(parts, "body")
    assert sum(map(len, thirds)) == len(names(parts, "body"))
    assert thirds[0] == names(parts, "stem", "layer1")
    assert thirds[2] == names(parts, "layer4")


def test_paths_and_patterns() -> None:
    parts = Parts(build("resnet50"))
    block = {n for n in parts.parameters if n.startswith("backbone.layer4.2.")}
    assert len(block) == 9
    assert names(parts, "backbone.layer4.2") == names(parts, "layer4.2") == block
    assert names(parts, "backbone.layer4.2.*") == names(parts, "*layer4.2.*") == block
    assert names(parts, r"re:backbone\.layer4\.2\..*") == block
    assert names(parts, "re:.*conv1.weight") == {n for n in block | set(parts.parameters)
                                                 if n.endswith("conv1.weight")}  # fmt: skip
    assert names(parts, "backbone.conv1.weight") == {"backbone.conv1.weight"}
    assert names(parts, "*layer4.2.conv[12].weight") == {
        n for n in block if n[-12:-8] == "conv"
    } - {"backbone.layer4.2.conv3.weight"}
    with pytest.raises(UserError, match="no regular expression"):
        parts.select("re:(", "here")
    with pytest.raises(UserError):  # a whole name, not a part of one
        parts.select("re:layer4", "here")


def test_last_layers_are_modules_of_the_body_in_their_order() -> None:
    model = Own(sequential())
    parts = Parts(model)
    with pytest.raises(UserError, match="last 2 layers"):
        parts.select("last 2 layers", "here")  # pooling and flattening: nothing to train
    assert names(parts, "last 4 layers") == {"backbone.1.weight", "backbone.1.bias"}
    assert names(parts, "last 5 layers") == names(parts, "body")
    with pytest.raises(UserError, match="last 6 layers"):
        parts.select("last 6 layers", "here")


def test_a_norm_with_an_activation_inside_counts_as_a_layer() -> None:
    parts = Parts(build("test_efficientnet"))
    assert names(parts, "norms") <= names(parts, "last 1000 layers".replace("1000", str(
        sum(1 for p, m in parts.model.backbone.named_modules()
            if p and (not list(m.children()) or list(m.parameters(recurse=False))))
    )))  # fmt: skip


def test_biases_of_attention_have_longer_names() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = nn.MultiheadAttention(4, 2)
            self.q_bias = nn.Parameter(torch.zeros(4))

    assert names(Parts(Own(Attention())), "biases") == {
        "backbone.q_bias", "backbone.attn.in_proj_bias", "backbone.attn.out_proj.bias"
    }  # fmt: skip


def test_adapters_are_what_a_callback_added() -> None:
    model = build("test_vit", meta=False)
    with pytest.raises(UserError, match="adapters"):
        Parts(model).select("adapters", "here")
    model.adapter_modules.append(model.backbone.blocks[1].mlp)
    assert names(Parts(model), "adapters") == {
        n for n, _ in model.named_parameters() if ".blocks.1.mlp." in n
    }


@pytest.mark.parametrize(
    ("selector", "near"),
    [
        ("haed", "nearest: head"), ("layer9", "layer"), ("bodies", "body|biases"),
        (6, "layer groups: stem"), (-7, "layer groups"), ("last 0", "last N"),
        ("last 7", "last N"), ("last 99 layers", "last N"), ("backbone.layer7.*", "layer groups"),
        ("norm", "norms"), ("", "valid"), ("re:nothing", "layer groups: stem, layer1"),
    ],
)  # fmt: skip
def test_what_matches_nothing_is_an_error_that_names_what_is_near(selector, near: str) -> None:
    with pytest.raises(UserError, match=near) as caught:
        Parts(build("test_resnet")).select(selector, "phase one: train")
    assert str(caught.value).startswith("phase one: train: ")
    assert "\n" not in str(caught.value)


# modes


def held(model: TransferModel, train: list, **phase) -> PhasePlan:
    plan = PhasePlan(parse_phases({"a": {"train": train, **phase}}), Parts(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in plan.states[0].trained)
    model.hold(plan.states[0].modes)
    return plan


@pytest.mark.parametrize(
    "name", ["test_efficientnet", "mobilenetv2_100", "test_vit", "test_resnet"]
)
def test_all_modules_of_a_frozen_body_are_in_eval(name: str) -> None:
    model = build(name, meta=False, drop_path_rate=0.5, drop_rate=0.5)
    held(model, ["head"])
    kinds = {type(m).__name__ for m in model.backbone.modules()}
    assert name not in ("test_efficientnet", "mobilenetv2_100") or "BatchNormAct2d" in kinds
    for _ in range(2):
        model.train()
        assert not [p for p, m in model.backbone.named_modules() if m.training]
        assert model.head.training
        model.eval()
        assert not any(m.training for m in model.modules())


def test_only_the_frozen_groups_are_in_eval() -> None:
    model = build("efficientnet_b0", meta=False, drop_path_rate=0.5)
    held(model, ["last 3"])
    model.train()
    modes = {path: m.training for path, m in model.backbone.named_modules()}
    frozen = [
        p for p in modes if p.startswith(("conv_stem", "bn1", *(f"blocks.{i}" for i in range(5))))
    ]
    assert not any(modes[p] for p in frozen)
    thawed = [p for p in modes if p.startswith(("blocks.5", "blocks.6", "conv_head", "bn2"))]
    assert all(modes[p] for p in thawed)
    assert len(frozen) > 100 < len(thawed)


def test_drop_path_goes_with_its_block() -> None:
    model = build("test_vit", meta=False, drop_path_rate=0.9, proj_drop_rate=0.5)
    images = torch.randn(4, 3, 160, 160)
    held(model, ["head"])
    model.train()
    assert torch.equal(model.backbone(images), model.backbone(images))
    held(model, ["last 2"])
    blocks = model.backbone.blocks
    assert blocks[5].drop_path1.training
    assert blocks[5].attn.proj_drop.training
    assert not blocks[4].drop_path1.training
    assert not torch.equal(model.backbone(images), model.backbone(images))


@pytest.mark.parametrize("norms", ["frozen", "adapt_statistics"])
def test_a_norm_policy_leaves_the_dropout_around_it_alone(norms: str) -> None:
    model = build("test_vit", meta=False, drop_path_rate=0.9, proj_drop_rate=0.5)
    held(model, ["all"], norms=norms)
    model.train()
    assert model.backbone.blocks[2].drop_path1.training
    assert model.backbone.blocks[2].attn.proj_drop.training
    assert model.backbone.training


@pytest.mark.parametrize(
    ("train", "dropout", "expected"),
    [(["head"], "follow", False), (["head"], "train", True), (["all"], "follow", True),
     (["all"], "frozen", False)],
)  # fmt: skip
def test_dropout_policies(train: list[str], dropout: str, expected: bool) -> None:
    model = build("test_vit", meta=False, drop_path_rate=0.9, proj_drop_rate=0.5)
    held(model, train, dropout=dropout)
    for _ in range(2):
        model.train()
        drops = [m for p, m in model.backbone.named_modules() if "drop" in p and hasattr(m, "p")]
        assert drops
        assert {m.training for m in drops} == {expected}
        assert {m.training for m in model.backbone.modules() if type(m).__name__ == "DropPath"} == {
            expected
        }


@pytest.mark.parametrize("train", [["head"], ["all"]])
@pytest.mark.parametrize("norms", NORMS)
@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
def test_norm_policies(name: str, norms: str, train: list[str]) -> None:
    model = build(name, meta=False)
    held(model, train, norms=norms)
    layers = {p: m for p, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    before = {k: v.clone() for k, v in model.named_buffers()}
    model.eval()
    model.train()  # whatever is called on the model, the policy holds
    model(3 + torch.randn(4, 3, 64, 64)).square().sum().backward()
    moved = {k for k, v in model.named_buffers() if not torch.equal(v, before[k])}
    moving = norms in ("adapt_statistics", "train")
    assert moved == (set(before) if moving else set())
    affine = {f"{p}.{kind}" for p in layers for kind in ("weight", "bias")}
    graded = {n for n, p in model.named_parameters() if p.grad is not None}
    assert graded & affine == (affine if norms in ("train_affine", "train") else set())
    others = {n for n, _ in model.named_parameters()} - affine
    assert graded - affine == (others if train == ["all"] else {"head.weight", "head.bias"})


def test_norms_that_follow_train_where_they_are_chosen() -> None:
    model = build("test_resnet", meta=False)
    held(model, ["head", "norms"])
    model.train()
    for path, module in model.backbone.named_modules():
        if is_norm(module):
            assert module.training, path
        elif list(module.parameters(recurse=False)):
            assert not module.training, path


def test_tied_weights_do_not_keep_a_module_in_eval() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Dropout())
            self.other[0].weight = self.one.weight

    model = Own(Tied())
    parts = Parts(model)
    modes = {id(m): on for m, on in parts.modes(parts.select("all", ""), "follow", "follow")}
    assert modes[id(model.backbone.other)]
    assert modes[id(model.backbone.other[1])]


def test_what_is_called_a_norm_is_one() -> None:
    kinds = [nn.BatchNorm1d(2), nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.InstanceNorm2d(2),
             nn.RMSNorm(2), timm.layers.LayerNorm2d(2), timm.layers.BatchNormAct2d(2),
             timm.layers.RmsNorm(2), timm.layers.FrozenBatchNormAct2d(2)]  # fmt: skip
    assert all(is_norm(m) for m in kinds)
    assert not any(is_norm(m) for m in (nn.Linear(2, 2), nn.Conv2d(1, 1, 1), nn.ReLU()))
