import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from transferlab import run as running
from transferlab.backbones.groups import layer_ids
from transferlab.backbones.timm import create_backbone, feature_width
from transferlab.callbacks.adapters import PEFTAdapter, chosen_layers
from transferlab.callbacks.l2_sp import L2SP
from transferlab.callbacks.replica_guard import checksum
from transferlab.errors import UserError
from transferlab.fitting import Fit, fit
from transferlab.heads.linear import LinearHead
from transferlab.model import TransferModel
from transferlab.optim import parameter_groups
from transferlab.parts import Parts
from transferlab.phase_plan import PhasePlan
from transferlab.phase_reading import parse_phases
from transferlab.planning import Plan
from transferlab.prediction import _load_model, _load_run, predict
from transferlab.schedule import Timeline

pytest.importorskip("peft")
State = dict[str, Tensor]
ARCHITECTURES = (
    "test_resnet", "test_efficientnet", "test_convnext", "test_vit", "mobilenetv2_100",
)  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4, "lora_alpha": 4}, "ia3": {}, "loha": {"r": 2}, "lokr": {"r": 2},
}  # fmt: skip


def build(name: str = "test_vit", **kwargs: Any) -> TransferModel:
    torch.manual_seed(0)
    kwargs = ({"img_size": 32} if "vit" in name else {}) | kwargs
    backbone = create_backbone(name, kwargs)
    return TransferModel(name, backbone, LinearHead(feature_width(backbone), 3)).eval()


def layers_of(model: TransferModel, kind: type[nn.Module]) -> set[str]:
    return {path for path, module in model.backbone.named_modules() if type(module) is kind}


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_at_first_the_model_computes_what_it_did(name: str, kind: str) -> None:
    model, images = build(name), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before, state = model(images), dict(model.state_dict())
        PEFTAdapter(kind, SETTINGS[kind]).adapt(model)  # type: ignore[arg-type]
        assert torch.equal(model(images), before)
    kept = {n.replace(".base_layer", ""): v for n, v in model.state_dict().items()}
    assert all(kept[n].data_ptr() == v.data_ptr() for n, v in state.items())
    parts = Parts(model)
    added = parts.select("adapters", "here")
    assert {n for n in parts.parameters if n.replace(".base_layer", "") not in state} == added
    stem = set(parts.groups[0].parameters)
    assert added
    assert not added & (stem | parts.head)


def test_automatic_targets() -> None:
    vit = build("test_vit")
    chosen = chosen_layers(vit, ["auto"], "lora")
    ends = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    blocks = len(vit.backbone.blocks)
    assert chosen == [f"blocks.{i}.{end}" for i in range(blocks) for end in ends]
    net = build("mobilenetv2_100")
    chosen = chosen_layers(net, ["auto"], "lora")
    assert "conv_stem" not in chosen
    assert not [path for path in chosen if net.backbone.get_submodule(path).groups > 1]
    ungrouped = {p for p in layers_of(net, nn.Conv2d)
                 if net.backbone.get_submodule(p).groups == 1}  # fmt: skip
    assert set(chosen) == ungrouped - {"conv_stem"}
    scaled = set(chosen_layers(net, ["auto"], "ia3"))
    assert scaled == layers_of(net, nn.Conv2d) - {"conv_stem"}


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["qkv"], ["blocks.0.attn.qkv", "blocks.1.attn.qkv"]),
        (["blocks.1.mlp"], ["blocks.1.mlp.fc1", "blocks.1.mlp.fc2"]),
        (["backbone.blocks.1.mlp.fc1"], ["blocks.1.mlp.fc1"]),
        (["blocks.[0-1].attn.p*"], ["blocks.0.attn.proj", "blocks.1.attn.proj"]),
        ([r"re:blocks\.0\.mlp\.fc\d"], ["blocks.0.mlp.fc1", "blocks.0.mlp.fc2"]),
        (["fc2", "blocks.0.attn.qkv"], ["blocks.0.attn.qkv", "blocks.0.mlp.fc2",
                                        "blocks.1.mlp.fc2"]),
    ],
)  # fmt: skip
def test_patterns(targets: list[str], expected: list[str]) -> None:
    model = build("test_vit", depth=2)
    assert chosen_layers(model, targets, "lora") == expected
    PEFTAdapter("lora", {"r": 2}, targets).adapt(model)
    adapted = {n.partition(".lora_")[0].removeprefix("backbone.")
               for n in Parts(model).select("adapters", "here")}  # fmt: skip
    assert adapted == set(expected)


@pytest.mark.parametrize("granularity", ["stages", "blocks"])
@pytest.mark.parametrize("name", ARCHITECTURES[:4])
def test_adapters_are_in_the_layer_group_of_their_layer(name: str, granularity: Any) -> None:
    model = build(name)
    before, head = layer_ids(model.backbone, granularity)
    names = [group.name for group in Parts(model, granularity).groups]
    PEFTAdapter("lora", {"r": 4}).adapt(model)
    after, same_head = layer_ids(model.backbone, granularity)
    assert head == same_head
    assert [group.name for group in Parts(model, granularity).groups] == names
    for parameter, group in after.items():
        plain = parameter.replace(".base_layer", "")
        layer = plain.partition(".lora_")[0]
        assert group == before.get(plain, before.get(f"{layer}.weight")), parameter


def test_rates_and_thawing_compose_with_adapters() -> None:
    model = build("test_vit")
    PEFTAdapter("lora", {"r": 4}).adapt(model)
    parts = Parts(model, "blocks")
    phases = parse_phases({
        "head": {"train": ["head"], "until": {"steps": 2}},
        "adapters": {"train": ["adapters"], "decay": 0.5},
    })  # fmt: skip
    plan, timeline = PhasePlan(phases, parts), Timeline(phases, 10, 5.0)
    adapters, top = parts.select("adapters", "here"), len(parts.groups) - 1
    assert plan.states[0].trained == parts.head
    assert plan.states[1].trained == parts.head | adapters
    assert len({parts.group_of[name] for name in adapters}) > 1
    for name in adapters:
        assert plan.rate(name, 1.0, 1.0, 1, timeline) == 0
        rate = plan.rate(name, 1.0, 1.0, 2, timeline)
        assert rate == pytest.approx(0.5 ** (top - parts.group_of[name]))


def test_weight_decay_leaves_factors_and_what_the_backbone_asks_alone() -> None:
    def undecayed(model: TransferModel) -> set[str]:
        groups = parameter_groups(model.named_parameters(), 1.0, model.undecayed())
        kept = {id(p) for group in groups for p in group["params"] if "weight_decay" in group}
        return {name for name, p in model.named_parameters() if id(p) in kept}

    model = build("test_vit")
    plain = undecayed(model)
    assert "backbone.pos_embed" in plain
    PEFTAdapter("ia3", {}).adapt(model)
    factors = Parts(model).select("adapters", "here")
    found = {name.replace(".base_layer", "") for name in undecayed(model)}
    assert found == plain | factors
    for rank in (1, 4):
        model = build("test_vit")
        PEFTAdapter("lora", {"r": rank}).adapt(model)
        assert {name.replace(".base_layer", "") for name in undecayed(model)} == plain


def test_what_the_adapters_added_stays_in_train_mode() -> None:
    model = build("test_vit")
    PEFTAdapter("lora", {"r": 4, "lora_dropout": 0.5}).adapt(model)
    parts = Parts(model)
    trained = parts.head | parts.select("adapters", "here")
    model.hold(parts.modes(trained, "follow", "follow"))
    model.train()
    on = {path for path, module in model.backbone.named_modules() if module.training and path}
    assert any(path.endswith("lora_dropout.default") for path in on)
    assert all("lora_" in path for path in on)
    with torch.no_grad():
        for name in parts.select("adapters", "here"):
            model.get_parameter(name).fill_(0.1)
    images = torch.randn(2, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("first", ["adapter", "l2_sp"])
def test_a_pull_to_the_start_leaves_adapters_alone_in_either_order(first: str) -> None:
    model, pull = build(), L2SP(alpha=1.0, beta=0.0)
    callbacks: list[Any] = [PEFTAdapter("lora", {"r": 4}), pull]
    for callback in callbacks if first == "adapter" else callbacks[::-1]:
        callback.adapt(model)
    model.requires_grad_(True)
    with torch.no_grad():
        for name in Parts(model).select("adapters", "here"):
            model.get_parameter(name).add_(1.0)
    assert float(pull.penalty(model, torch.zeros(0)).detach()) == 0
    with torch.no_grad():
        model.get_parameter("backbone.blocks.0.attn.qkv.base_layer.weight")[0, 0] += 2.0
    assert float(pull.penalty(model, torch.zeros(0)).detach()) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"targets": ["qvk"]}, "qkv"),
        ({"targets": ["norm1"]}, "can't have an adapter"),
        ({"targets": []}, "names no layer"),
        ({"targets": ["re:("]}, "no regular expression"),
        ({"settings": {"rank": 4}}, "no such setting"),
        ({"settings": {"r": 0}}, "peft refuses"),
        ({"settings": {"bias": "all"}}, "no effect"),
        ({"settings": {"modules_to_save": ["norm"]}}, "no effect"),
        ({"kind": "lore"}, "lora"),
        ({"kind": "ia3", "settings": {"feedforward_modules": ["fc3"]}}, "fc2"),
    ],
)
def test_what_means_nothing_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        PEFTAdapter(**arguments).adapt(build())


def test_adapters_are_added_once() -> None:
    model = build()
    PEFTAdapter("lora", {"r": 4}).adapt(model)
    with pytest.raises(UserError, match="already"):
        PEFTAdapter("ia3").adapt(model)


def test_without_peft_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"transferlab\[peft\]"):
        PEFTAdapter()


def adapters(fitted: Fit) -> State:
    names = Parts(fitted.module.model).select("adapters", "here")
    return {name: fitted.module.model.get_parameter(name).detach() for name in names}


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("strategy", ["lora", "ia3"])
def test_a_run_trains_head_and_adapters_and_nothing_else(
    strategy: str, backbone: str, make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = make_plan(f"strategy={strategy}", f"backbone.name={backbone}", "optimizer.lr=0.01")
    torch.manual_seed(3)
    kwargs = {"img_size": plan.data.preprocessing.size} if backbone == "test_vit" else {}
    weights = {k: v + 0.05 * torch.rand_like(v) if v.is_floating_point() else v + 7
               for k, v in create_backbone(backbone, kwargs).state_dict().items()}  # fmt: skip
    fitted = fit(plan, weights, tmp_path, [])
    model = fitted.module.model
    found = {n.replace(".base_layer", ""): v for n, v in model.backbone.state_dict().items()}
    assert all(checksum(found[n]) == checksum(v) for n, v in weights.items())
    added = Parts(model).select("adapters", "here")
    assert {n for n, p in model.named_parameters() if p.requires_grad} == added | {
        "head.weight", "head.bias",
    }  # fmt: skip
    known = {id(p) for p in fitted.trainer.optimizers[0].state}
    assert known == {id(p) for p in model.parameters() if p.requires_grad}
    inert = 1.0 if strategy == "ia3" else 0.0
    moved = [v for n, v in adapters(fitted).items() if "lora_A" not in n]
    assert all((v != inert).any() for v in moved)


def test_first_values_follow_from_the_seed_alone(
    make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    def start(*overrides: str) -> State:
        plan = make_plan("strategy=lora", "optimizer.lr=1e-30", "budget.steps=1", *overrides)
        return adapters(fit(plan, None, tmp_path, []))

    one, again, other = start(), start("head=mlp"), start("seed=1")
    assert all(torch.allclose(one[name], again[name]) for name in one)
    assert not any(torch.allclose(one[n], other[n]) for n in one if "lora_A" in n)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("strategy", ["lora", "ia3"])
def test_a_run_reloads_with_its_head_and_gives_the_same_logits(
    strategy: str, backbone: str, make_plan: Callable[..., Plan], tmp_path: Path, monkeypatch
) -> None:
    kept: list[Fit] = []

    def watched(*arguments: Any) -> Fit:
        kept.append(fit(*arguments))
        return kept[-1]

    monkeypatch.setattr(running, "fit", watched)
    plan = make_plan(
        f"strategy={strategy}", f"backbone.name={backbone}", "optimizer.lr=0.01",
        "checkpoint.keep=last",
    )  # fmt: skip
    running.execute(plan)
    record, cfg = _load_run(plan.directory)
    loaded, model = _load_model(plan.directory, record, cfg), kept[0].module.model.eval()
    channels = len(plan.data.preprocessing.mean)
    size = plan.data.preprocessing.size
    images = torch.randn(4, channels, size, size)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), model(images), rtol=1e-5, atol=1e-5)
    assert not torch.equal(loaded.head.weight, torch.zeros_like(loaded.head.weight))
    torch.testing.assert_close(loaded.head.weight, model.head.weight)
    Image.new("L", (size, size), 128).save(tmp_path / "grey.png")
    frame = predict(plan.directory, [tmp_path / "grey.png"], tmp_path / "out.csv")
    assert math.isclose(sum(v for k, v in frame.iloc[0].items() if k.startswith("p(")), 1.0,
                        rel_tol=1e-6)  # fmt: skip
