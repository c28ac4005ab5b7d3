"""A module's fingerprint moves with all that its output follows from, and with nothing else."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from transferlab.fingerprint import fingerprint


def vit(**kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, img_size=32, depth=1, **kwargs
    ).eval()


def test_equal_modules_are_equal() -> None:
    assert fingerprint(vit()) == fingerprint(vit())


def _noise(module: nn.Module) -> None:
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] += 1e-6


def _statistics(module: Any) -> None:
    module.norm.eps = 1e-3


CHANGES: dict[str, Callable[[Any], object]] = {
    "a weight": _noise,
    "a number that no repr shows": lambda m: setattr(m.blocks[0].attn, "num_heads", 6),
    "the mode": lambda m: m.train(),
    "epsilon": _statistics,
    "precision": lambda m: m.double(),
    "a part": lambda m: setattr(m, "norm", nn.Identity()),
    "a hook": lambda m: m.norm.register_forward_hook(lambda *_: None),
    "a function": lambda m: setattr(m, "act", functional.gelu),
    "a partial": lambda m: setattr(m, "act", partial(functional.gelu, approximate="tanh")),
    "a part in a list": lambda m: setattr(m, "own", [nn.Linear(2, 2)]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_moves_with(change: str) -> None:
    module = vit()
    CHANGES[change](module)
    assert fingerprint(module) != fingerprint(vit())


def test_settings_of_functions_count() -> None:
    found = set()
    for approximate in ("none", "tanh"):
        module = nn.Linear(1, 1)
        nn.init.ones_(module.weight)
        nn.init.ones_(module.bias)
        module.act = partial(functional.gelu, approximate=approximate)  # type: ignore[assignment]
        found.add(fingerprint(module))
    assert len(found) == 2


def test_another_process_finds_the_same() -> None:
    code = (
        "import timm, torch; from transferlab.fingerprint import fingerprint\n"
        "torch.manual_seed(0)\n"
        "for name in ('test_resnet', 'test_efficientnet', 'test_convnext', 'test_vit'):\n"
        "    print(fingerprint(timm.create_model(name, num_classes=0)))"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert found[0] == found[1]
    assert len(set(found[0])) == 4
