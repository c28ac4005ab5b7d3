"""fastai's ``Learner.fine_tune``: a frozen stage, then discriminative one-cycle rates."""

from collections.abc import Callable
from pathlib import Path

import tiny
import traces
from fastai.basics import DataLoaders, Learner
from fastai.callback import schedule  # noqa: F401 (adds fine_tune to Learner)
from fastai.torch_core import params
from fastai.vision.learner import default_split
from torch import nn

STEPS = 10  # an epoch
SETTINGS = {"epochs": 3, "base_lr": 2e-3, "freeze_epochs": 1}
DEFAULTS = {
    "lr_mult": 100,
    "pct_start": 0.3,
    "div": 5.0,
    "freeze_pct_start": 0.99,
    "div_final": 1e5,
}
Splitter = Callable[[nn.Module], list[list[nn.Parameter]]]


def three_groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """fastai's split of a torchvision ResNet: up to stage 2, stages 3 and 4, head."""
    body = model.backbone
    upper = [*params(body.layer3), *params(body.layer4)]
    known = {id(p) for p in upper}
    return [[p for p in params(body) if id(p) not in known], upper, params(model.head)]


def fine_tune(model: nn.Module, splitter: Splitter) -> traces.Tracer:
    """Run the recipe whole. fastai's Adam is no torch optimizer, so its ``step`` is wrapped."""
    tracer = traces.Tracer(model)
    loader = tiny.images(STEPS)
    learner = Learner(
        DataLoaders(loader, loader, device="cpu"), model, nn.CrossEntropyLoss(), splitter=splitter
    )
    learner.create_opt()
    optimizer = learner.opt
    step = optimizer.step

    def read_and_step(closure: object = None) -> None:
        groups = [
            {"params": list(p), "lr": h["lr"], "momentum": h["mom"], "weight_decay": h["wd"]}
            for p, h in zip(optimizer.param_lists, optimizer.hypers, strict=True)
        ]
        exempt = frozenset(
            id(p) for p, _, state, _ in optimizer.all_params() if not state.get("do_wd", True)
        )
        tracer.read(groups, exempt)
        step(closure)

    optimizer.step = read_and_step
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(**SETTINGS)
    return tracer


def record(folder: Path) -> list[Path]:
    written = []
    for name, splitter, split in (
        ("test_resnet", three_groups, "stem to stage 2 | stages 3 and 4 | head"),
        ("test_resnet", default_split, "backbone | head (fastai's default_split)"),
        ("test_vit", default_split, "backbone | head (fastai's default_split)"),
    ):
        groups = len(split.split("|"))
        header = {
            "peer": "fastai",
            "model": f"timm {name}, num_classes=0, as backbone; nn.Linear as head",
            "split": split,
            "steps_per_epoch": STEPS,
            "hyper_parameters": SETTINGS
            | DEFAULTS
            | {"optimizer": "fastai Adam", "train_bn": True},
        }
        tracer = fine_tune(tiny.backbone_and_head(name), splitter)
        recipe = f"fastai_fine_tune_{name.removeprefix('test_')}_{groups}_groups"
        written.append(traces.write(folder, recipe, header, tracer.groups()))
    return written
