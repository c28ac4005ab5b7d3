"""A module of the user's as a backbone, from its options to a run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from user_nets import Net

from transferlab.assembling import build_model
from transferlab.backbones.module import ModuleBackbone, create_module, starts_at_random
from transferlab.backbones.opening import (
    backbone_identity,
    check_backbone,
    open_backbone,
    resolve_preprocessing,
)
from transferlab.backbones.timm import feature_width
from transferlab.backbones.weights import load_backbone, load_weights
from transferlab.checks import check
from transferlab.errors import UserError
from transferlab.fitting import fit
from transferlab.planning import Plan, external_weights, plan_run

NETS = "user_nets"
OWN = ("backbone=module", "backbone.image_size=32", f"allowed_packages=[{NETS}]")


def create(name: str, cut: str | None = None, channels: int = 3, **options) -> ModuleBackbone:
    node = OmegaConf.create({"_target_": f"{NETS}.{name}", **options})
    return create_module(node, cut, 32, channels)


@pytest.mark.parametrize(
    ("name", "cut", "shape"),
    [
        ("Net", "head.fc", (2, 16)),
        ("Net", None, (2, 7)),
        ("Maps", None, (2, 16, 8, 8)),
        ("LastMaps", None, (2, 8, 8, 16)),
        ("Tokens", None, (2, 64, 16)),
    ],
)
def test_any_shape_of_features_is_pooled_to_vectors(name, cut, shape) -> None:
    backbone = create(name, cut)
    images = torch.randn(2, 3, 32, 32)
    backbone.eval()
    features = backbone.forward_features(images)
    assert features.shape == shape
    axes = {2: (), 3: (1,), 4: (1, 2) if name == "LastMaps" else (2, 3)}[len(shape)]
    expected = features.mean(dim=axes) if axes else features
    torch.testing.assert_close(backbone(images), expected)
    assert feature_width(backbone) == expected.shape[1]


def test_measuring_leaves_modes_and_statistics_alone() -> None:
    backbone = create("Net", "head.fc")
    assert all(module.training for module in backbone.modules())
    assert torch.equal(backbone.body.stem[1].running_mean, torch.zeros(8))
    assert int(backbone.body.stem[1].num_batches_tracked) == 0


def test_options_reach_the_module() -> None:
    assert create("Net", "head.fc", width=5).num_features == 10
    assert create("Tokens").no_weight_decay() == {"body.position"}
    assert create("Net").no_weight_decay() == set()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: create("Net", "head.fcc"), r"backbone.cut=head.fcc: .*Net has no such.*head.fc"),
        (lambda: create("Net", "fc"), r"backbone.cut=fc"),
        (lambda: create("Net", channels=4), r"fails on images of shape \(2, 4, 32, 32\)"),
        (lambda: create("Several"), r"gives a tuple; expected \(B, F\)"),
        (lambda: create("no_module"), r"gives a int, not a module"),
        (lambda: create("Net", width="wide"), r"could not be built"),
    ],
)
def test_what_does_not_fit_is_named(call: Callable[[], object], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_view_under_channels_last_names_the_setting() -> None:
    backbone = create("Viewing").to(memory_format=torch.channels_last)
    with pytest.raises(UserError, match=r"trainer\.channels_last=false"):
        backbone(torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last))


def test_weights_that_do_not_follow_from_the_seed_are_found() -> None:
    nodes = {n: OmegaConf.create({"_target_": f"{NETS}.{n}"}) for n in ("Net", "Pretrained")}
    state = torch.get_rng_state()
    assert starts_at_random(nodes["Net"])
    assert not starts_at_random(nodes["Pretrained"])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture
def backbone_node(compose: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    def make(*overrides: str) -> DictConfig:
        cfg = compose(*overrides)
        OmegaConf.resolve(cfg)
        node: DictConfig = cfg.backbone
        return node

    return make


def test_options_are_given_without_a_plus(backbone_node) -> None:
    node = backbone_node(*OWN, f"backbone.module._target_={NETS}.Net", "backbone.module.width=4")
    assert node.name == f"{NETS}.Net"
    assert open_backbone(node, 32).body.block.weight.shape == (8, 4, 3, 3)


def test_the_input_comes_from_the_options(backbone_node) -> None:
    plain = resolve_preprocessing(backbone_node("backbone=module", f"backbone.name={NETS}.Net"))
    assert (plain.size, plain.interpolation, plain.crop_pct) == (224, "bilinear", 1.0)
    assert plain.mean == (0.485, 0.456, 0.406)
    assert plain.std == (0.229, 0.224, 0.225)
    own = resolve_preprocessing(
        backbone_node(
            *OWN, "backbone.name=own", "backbone.mean=[0.5]", "backbone.std=[0.25]",
            "backbone.interpolation=nearest", "backbone.crop_pct=0.9",
        )
    )  # fmt: skip
    assert (own.size, own.mean, own.std, own.interpolation) == (32, (0.5,), (0.25,), "nearest")
    assert own.crop_pct == 0.9
    timm = resolve_preprocessing(backbone_node("backbone.mean=[0,0,0]", "backbone.std=[1,1,1]"))
    assert (timm.mean, timm.std, timm.size) == ((0.0,) * 3, (1.0,) * 3, 32)


NET = f"backbone.module._target_={NETS}.Net"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ((*OWN, NET, "backbone.std=[1,1]"), r"backbone.mean=\[0.485.*one value each a channel"),
        ((*OWN, NET, "backbone.std=[1,0,1]"), r"positive ones in std"),
        ((*OWN, NET, "backbone.image_size=4"), r"backbone.image_size=4: expected at least 8"),
        ((*OWN, NET, "backbone.mean=[0]", "backbone.std=[1]"), r"fails on images of shape \(2, 1"),
        ((*OWN, NET, "+backbone.kwargs.depth=3"), r"backbone.kwargs=.*backbone.module.OPTION"),
        ((*OWN, NET, "backbone.name=resnet50"), r"backbone.name=resnet50 is timm's"),
        ((*OWN, f"backbone.module._target_={NETS}.Pretrained"), r"scratch would not be scratch"),
        (("backbone.cut=fc",), r"backbone.cut=fc is for modules of your own"),
        (("backbone.module.width=3",), r"expected a node with _target_"),
    ],
)
def test_backbones_that_make_no_sense_fail_before_data_is_read(
    overrides: tuple[str, ...], told: str, backbone_node
) -> None:
    with pytest.raises(UserError, match=told) as caught:
        check_backbone(backbone_node(*overrides))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("backbone.module._target_=user_nets.Nett", "can't be imported .*Net"),
        ("backbone.module._target_=not_there.Net", "not_there is not among the allowed packages"),
        ("backbone.module.widht=3", "takes no argument 'widht' .*width"),
        ("backbone.module.width=wide", "backbone.module.width='wide': expected int"),
        ("backbone.interpolation=cubic", "backbone.interpolation=cubic: no such choice"),
    ],
)
def test_wrong_options_are_named_by_the_checks(override: str, told: str, compose) -> None:
    cfg = compose(*OWN, NET, override)
    with pytest.raises(UserError, match=told):
        check(cfg)


def test_published_weights_are_timms_alone(make_plan) -> None:
    with pytest.raises(UserError, match=r"source=published .*source=checkpoint source.path=FILE"):
        make_plan(*OWN, NET, "source=published", "source.tag=a1_in1k")


def test_a_module_and_its_code_are_part_of_a_runs_identity(
    backbone_node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = backbone_identity(backbone_node(*OWN, NET))
    assert first == backbone_identity(backbone_node(*OWN, NET))
    for change in ("backbone.module.width=4", "backbone.cut=head.fc", "backbone.image_size=33"):
        assert backbone_identity(backbone_node(*OWN, NET, change)) != first
    assert backbone_identity(backbone_node(*OWN, NET, "backbone.name=another")) == first
    monkeypatch.syspath_prepend(tmp_path)
    node = backbone_node(*OWN, "backbone.module._target_=edited_net.Net")
    codes = []
    for text in ("1", "2"):
        (tmp_path / "edited_net.py").write_text(f"class Net: depth = {text}\n")
        codes.append(backbone_identity(node)[0]["code"])
    assert codes[0] != codes[1]
    installed = backbone_node("backbone=alexnet")
    assert backbone_identity(installed)[0]["code"] is None


WRAPPINGS = {
    "plain": lambda s: s,
    "data parallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": {f"module.{k}": v for k, v in s.items()}, "optimizer": {}},
    "compiled": lambda s: {"state_dict": {f"_orig_mod.module.{k}": v for k, v in s.items()}},
    "a run of ours": lambda s: (
        {f"backbone.body.{k}": v for k, v in s.items()}
        | {"head.weight": torch.zeros(4, 16), "head.bias": torch.zeros(4)}
    ),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_its_checkpoint_loads_in_the_usual_wrappings(wrapping: str, tmp_path: Path) -> None:
    torch.manual_seed(9)
    state = Net().state_dict()
    torch.save(WRAPPINGS[wrapping](state), tmp_path / "weights.pth")
    backbone = create("Net", "head.fc")
    classes = load_backbone(backbone, load_weights(tmp_path / "weights.pth"), "the file")
    assert classes == 7 or wrapping == "a run of ours"
    loaded = backbone.body.state_dict()
    assert set(loaded) == {k for k in state if not k.startswith("head")}
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())


def test_a_new_head_beside_a_part_of_the_same_name_does_not_take_its_place() -> None:
    """A run saves ``head.weight`` for its own head; the module inside may have one too."""
    inner = {"conv.weight": torch.ones(2, 3, 1, 1), "head.weight": torch.full((5, 2), 2.0)}
    body = nn.Module()
    body.conv, body.head = nn.Conv2d(3, 2, 1, bias=False), nn.Linear(2, 5, bias=False)
    backbone = ModuleBackbone(body, None, "own")
    state = {f"backbone.body.{k}": v for k, v in inner.items()}
    load_backbone(backbone, {"head.weight": torch.zeros(9, 5)} | state, "the file")
    assert torch.equal(body.head.weight, inner["head.weight"])


def test_another_modules_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save(Net(width=4).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(UserError, match="does not fit"):
        load_backbone(create("Net", "head.fc"), load_weights(tmp_path / "weights.pth"), "it")


@pytest.mark.parametrize("head", ["linear", "attention_pool", "concat_pool", "prototype"])
@pytest.mark.parametrize("name", ["Maps", "LastMaps", "Tokens"])
def test_a_module_trains_under_every_kind_of_head(
    name: str, head: str, make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = make_plan(*OWN, f"backbone.module._target_={NETS}.{name}", f"head={head}")
    before = build_model(plan.cfg, 10, 32).state_dict()
    done = fit(plan, None, tmp_path, [])
    after = done.module.model.state_dict()
    for part in ("backbone.body.stem.0.weight", "backbone.body.block.weight"):
        assert not torch.equal(before[part], after[part].cpu()), part


def test_a_module_starts_from_its_checkpoint_and_stays_there_when_frozen(
    make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    torch.manual_seed(9)
    state = Net().state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "w.pth")
    plan = make_plan(
        *OWN, NET, "backbone.cut=head.fc", "strategy=feature_extraction",
        "source=checkpoint", f"source.path='{tmp_path / 'w.pth'}'",
    )  # fmt: skip
    done = fit(plan, external_weights(plan.cfg)[0], tmp_path, [])
    kept = done.module.model.backbone.body.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in kept.items())


def test_a_head_on_the_map_refuses_a_module_that_pools(make_plan, tmp_path: Path) -> None:
    plan = make_plan(*OWN, NET, "head=attention_pool")
    with pytest.raises(UserError, match="unpooled map"):
        fit(plan, None, tmp_path, [])


def test_planning_twice_gives_the_same_run(compose, tmp_path: Path) -> None:
    cfg = compose("trainer=cpu", *OWN, NET, "target.shots=5", f"output_dir='{tmp_path}'")
    assert plan_run(cfg).run_id == plan_run(cfg).run_id
