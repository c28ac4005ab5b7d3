"""timm's layer-wise decay with timm's own cosine, and its static tables of scales."""

from pathlib import Path
from typing import Any

import timm
import tiny
import torch
import traces
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn

SETTINGS = {"opt": "adamw", "lr": 1e-3, "weight_decay": 0.05, "layer_decay": 0.75}
STEPS, EPOCHS = 10, 3
COSINE = {
    "t_initial": STEPS * EPOCHS,
    "lr_min": 1e-6,
    "warmup_t": 5,
    "warmup_lr_init": 1e-5,
    "t_in_epochs": False,
}
LARGE = ("vit_base_patch16_224", "resnet50")


def train(name: str, prefix: bool) -> traces.Tracer:
    """One short training, scheduled as in timm's train.py: by update, after each step."""
    model = tiny.classifier(name)
    tracer = traces.Tracer(model)
    optimizer = create_optimizer_v2(model, **SETTINGS)
    tracer.watch(optimizer)
    scheduler = CosineLRScheduler(optimizer, **COSINE, warmup_prefix=prefix)
    size = model.pretrained_cfg["input_size"]
    inputs = torch.randn(2, *size)
    updates = 0
    for _ in range(EPOCHS):
        for _ in range(STEPS):
            loss = nn.functional.cross_entropy(model(inputs), torch.tensor([0, 1]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates += 1
            scheduler.step_update(num_updates=updates)
    return tracer


def table(name: str) -> list[dict[str, Any]]:
    """Return timm's groups of a model that has no weights: scale, decay, names."""
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=tiny.CLASSES)
    names = {id(p): n for n, p in model.named_parameters()}
    return [
        {
            "parameters": [names[id(p)] for p in group["params"]],
            "lr_scale": group["lr_scale"],
            "weight_decay": group["weight_decay"],
        }
        for group in create_optimizer_v2(model, **SETTINGS).param_groups
    ]


def record(folder: Path) -> list[Path]:
    written = []
    for name in ("test_vit", "test_resnet"):
        for prefix in (False, True):
            header = {
                "peer": "timm",
                "model": f"timm {name}, num_classes={tiny.CLASSES}",
                "steps_per_epoch": STEPS,
                "hyper_parameters": SETTINGS | COSINE | {"warmup_prefix": prefix},
            }
            ending = "_prefix" if prefix else ""
            recipe = f"timm_layer_decay_{name.removeprefix('test_')}{ending}"
            written.append(traces.write(folder, recipe, header, train(name, prefix).groups()))
    for name in LARGE:
        header = {
            "peer": "timm",
            "model": f"timm {name}, num_classes={tiny.CLASSES}, on the meta device",
            "hyper_parameters": SETTINGS,
        }
        written.append(traces.write(folder, f"timm_lr_scales_{name}", header, table(name)))
    return written
