"""Rates at every optimiser step of a peer's recipe, against traces that its own code left.

The traces are recorded by experiments/parity/record.py; ours are read off the optimizer's groups
just before each step of a real fit.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import OmegaConf
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR, StepLR
from torch.utils.data import DataLoader

from transferlab.callbacks.gradual_unfreezing import TensorUnfreezing
from transferlab.callbacks.layerwise_lr_decay import LayerwiseLRDecay
from transferlab.callbacks.phases import Phases
from transferlab.config import config_folder
from transferlab.fitting import quiet

TRACES = Path(__file__).parents[2] / "data" / "parity"
Rates = dict[str, list[float | None]]


def load(recipe: str) -> dict[str, Any]:
    return json.loads((TRACES / f"{recipe}.json").read_text())


def expand(trace: Mapping[str, Any], field: str = "lr") -> Rates:
    return {
        name: [value for value, steps in group[field] for _ in range(steps)]
        for group in trace["groups"]
        for name in group["parameters"]
    }


class Pair(LightningModule):
    """A model whose loss gives every parameter a gradient without a forward pass."""

    def __init__(
        self, backbone: nn.Module, head: nn.Module, lr: float,
        scheduler: Callable[[Any], Any] | None = None, interval: str = "epoch",
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone, self.head = backbone, head
        self.lr, self.scheduler, self.interval = lr, scheduler, interval

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum()

    def configure_optimizers(self) -> Any:
        optimizer = AdamW(self.parameters(), lr=self.lr)
        if self.scheduler is None:
            return optimizer
        scheduler = {"scheduler": self.scheduler(optimizer), "interval": self.interval}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


class Reader(Callback):
    """Read every parameter's rate and momentum just before each optimiser step."""

    def __init__(self) -> None:
        self.lr: Rates = {}
        self.momentum: Rates = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        names = {id(p): n for n, p in pl_module.named_parameters()}
        self.lr = {n: [] for n in names.values()}
        self.momentum = {n: [] for n in names.values()}
        optimizer = pl_module.optimizers().optimizer

        def read(*_: object) -> None:
            for group in optimizer.param_groups:
                for p in group["params"]:
                    trains = p.requires_grad  # its gradient comes inside the step
                    self.lr[names[id(p)]].append(group["lr"] if trains else None)
                    self.momentum[names[id(p)]].append(group["betas"][0] if trains else None)

        optimizer.register_step_pre_hook(read)


def fit(module: LightningModule, callbacks: list[Callback], steps: int, epoch: int) -> Reader:
    reader = Reader()
    with quiet():
        trainer = Trainer(
            accelerator="cpu", max_epochs=-(-steps // epoch), max_steps=steps, logger=False,
            callbacks=[*callbacks, reader], enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, DataLoader(torch.zeros(epoch, 1), batch_size=1))
    return reader


def pair(trace: Mapping[str, Any], lr: float, **kwargs: Any) -> Pair:
    name = trace["model"].split(",")[0].removeprefix("timm ")
    backbone = timm.create_model(name, num_classes=0)
    return Pair(backbone, nn.Linear(backbone.num_features, 10), lr, **kwargs)


def recipe(name: str, **changes: Any) -> list[Callback]:
    """Build the callbacks of a strategy's YAML, with dotted changes."""
    cfg = OmegaConf.load(config_folder() / "strategy" / f"{name}.yaml")
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    whole = OmegaConf.create({"strategy": cfg})
    return [instantiate(node) for node in whole.strategy.callbacks.values()]


def assert_equal(found: Rates, expected: Rates, rel: float = 1e-9) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert [v is None for v in found[name]] == [v is None for v in values], name
        ours = [v for v in found[name] if v is not None]
        theirs = [v for v in values if v is not None]
        assert ours == pytest.approx(theirs, rel=rel, abs=0), name


def length(trace: Mapping[str, Any]) -> int:
    return len(next(iter(expand(trace).values())))


@pytest.mark.parametrize("name", ["resnet_2", "vit_2"])
def test_fastai_fine_tune(name: str) -> None:
    trace = load(f"fastai_fine_tune_{name}_groups")
    read = fit(
        pair(trace, trace["hyper_parameters"]["base_lr"]), recipe("fastai_fine_tune"),
        length(trace), trace["steps_per_epoch"],
    )  # fmt: skip
    assert_equal(read.lr, expand(trace), rel=1e-5)  # fastai computes its place in float32
    assert_equal(read.momentum, expand(trace, "momentum"), rel=1e-5)


def test_fastai_fine_tune_with_three_groups() -> None:
    trace = load("fastai_fine_tune_resnet_3_groups")
    lower = {"stem": 0.01, "layer1": 0.01, "layer2": 0.01}
    upper = {"layer3": 0.1, "layer4": 0.1}
    cfg = OmegaConf.load(config_folder() / "strategy" / "fastai_fine_tune.yaml")
    nodes = OmegaConf.to_container(cfg.callbacks.phases.phases)
    nodes["unfreeze"]["rates"] = {"head": 1.0, **lower, **upper}
    for node in nodes.values():
        for key in ("curve", "momentum"):
            node[key] = instantiate(node[key])
    read = fit(
        pair(trace, trace["hyper_parameters"]["base_lr"]), [Phases(nodes)],
        length(trace), trace["steps_per_epoch"],
    )  # fmt: skip
    assert_equal(read.lr, expand(trace), rel=1e-5)


@pytest.mark.parametrize(("name", "epochs"), [("vit_2", 2), ("resnet_2", 2), ("vit_10", 10)])
def test_lightnings_backbone_finetuning(name: str, epochs: int) -> None:
    trace = load(f"lightning_backbone_finetuning_{name}")
    changed = {"callbacks__phases__phases__head__until__epochs": epochs}
    read = fit(
        pair(trace, trace["hyper_parameters"]["lr"]), recipe("backbone_finetuning", **changed),
        length(trace), trace["steps_per_epoch"],
    )  # fmt: skip
    assert_equal(read.lr, expand(trace))


def explicit(trace: Mapping[str, Any], rebase: bool) -> Phases:
    """Write a schedule of finetuning-scheduler in our words."""
    nodes: dict[str, Any] = {}
    begun = 0
    entries = trace["schedule"]
    for depth, entry in entries.items():
        node: dict[str, Any] = {"train": [f"re:{pattern}" for pattern in entry["params"]]}
        if depth != "0":
            base = trace["hyper_parameters"]["base_max_lr"]
            node |= {"lr": entry.get("lr", base), "rebase": rebase}
        if str(int(depth) + 1) in entries:
            end = entry["max_transition_epoch"]
            node["until"] = {"steps": (end - begun) * trace["steps_per_epoch"]}
            begun = end
        nodes[f"phase{depth}"] = node
    return Phases(nodes)


@pytest.mark.parametrize(
    ("name", "scheduler", "rebase"),
    [
        ("constant", None, False),
        ("step", lambda optimizer: StepLR(optimizer, 1, 0.7), True),
        ("lambda", lambda optimizer: LambdaLR(optimizer, lambda epoch: 0.9**epoch), False),
    ],
)
def test_finetuning_schedulers_explicit_schedule(name: str, scheduler: Any, rebase: bool) -> None:
    trace = load(f"finetuning_scheduler_explicit_{name}")
    module = pair(trace, trace["hyper_parameters"]["lr"], scheduler=scheduler)
    read = fit(module, [explicit(trace, rebase)], length(trace), trace["steps_per_epoch"])
    assert_equal(read.lr, expand(trace))


def test_finetuning_schedulers_implicit_schedule() -> None:
    trace = load("finetuning_scheduler_implicit_epochs")
    names = list(expand(trace))
    layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(len(names) // 2)))
    lr = trace["hyper_parameters"]["lr"]
    module = Pair(layers[:-1], layers[-1], lr)
    ours = dict(zip(names, [n for n, _ in module.named_parameters()], strict=True))
    first = next(i for i, v in enumerate(expand(trace)[names[-3]]) if v is not None)
    read = fit(
        module, [TensorUnfreezing(every={"steps": first})], length(trace), trace["steps_per_epoch"]
    )
    expected = {ours[name]: values for name, values in expand(trace).items()}
    assert_equal(read.lr, expected)


@pytest.mark.parametrize("name", ["vit", "resnet", "vit_prefix", "resnet_prefix"])
def test_timms_layer_decay(name: str) -> None:
    trace = load(f"timm_layer_decay_{name}")
    expected, settings = expand(trace), trace["hyper_parameters"]
    architecture = trace["model"].split(",")[0].removeprefix("timm ")
    model = timm.create_model(architecture, num_classes=10)
    (classifier,) = {n for n in expected if n.endswith("weight") and n.startswith(("head.", "fc."))}
    curve = [rate / settings["lr"] for rate in expected[classifier]]

    class Whole(Pair):
        def __init__(self) -> None:
            LightningModule.__init__(self)
            self.net, self.lr, self.interval = model, settings["lr"], "step"
            self.scheduler = lambda o: LambdaLR(o, lambda step: curve[min(step, len(curve) - 1)])

    read = fit(Whole(), [LayerwiseLRDecay(settings["layer_decay"])], length(trace), 10)
    assert_equal({n.removeprefix("net."): v for n, v in read.lr.items()}, expected, rel=1e-7)
