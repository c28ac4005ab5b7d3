"""The precision that is fastest for a model on a machine, where the user leaves it open."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.nn.functional import cross_entropy

from transferlab.backbones.layout import lay_out
from transferlab.backbones.opening import open_backbone, resolve_preprocessing
from transferlab.backbones.timm import feature_width
from transferlab.cache import cache_folder
from transferlab.cluster import cluster
from transferlab.errors import FullDiskError, UserError
from transferlab.heads.linear import LinearHead
from transferlab.lease import held
from transferlab.machine import ranks
from transferlab.records import read_json, sha256_record, write_json

PLAIN, MIXED = "32-true", "bf16-mixed"
GAIN = 1.25
"""How many times faster bf16 has to be: below, noise could choose, for no gain to speak of."""
ROUNDS = 5, 25
"""Rounds of timing: as many as the first, and more up to the second while they are quick."""
QUICK_SECONDS = 1.0
MOST_SECONDS = 20.0
"""Of timing; a model that takes longer is judged by fewer rounds, one at the least."""
CLASSES = 10
IN_HARDWARE = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""What PyTorch calls a CPU's instructions on bf16; without them it is emulated, and slow."""


def settle_precision(cfg: DictConfig) -> str:
    """Return the precision of a run, as set, or for ``auto`` the fastest of fp32 and bf16.

    Both are timed in turn, whole training steps on noise, where the device computes in bf16 by
    itself; elsewhere, and where jobs run on machines that this one can't time, it is fp32. What
    was measured is kept in the cache, so that all runs of a model on a machine agree; where it
    can't be kept it is fp32 as well. Threads and memory format are those of the run that is
    planned first. Others keep to what it found: neither is part of a run's name, but precision
    is, and a study that goes on with other threads has to find its runs again.

    Args:
        cfg: of the run.

    Returns:
        a precision as Lightning names it.
    """
    if cfg.trainer.precision != "auto":
        return str(cfg.trainer.precision)
    device = None if cluster.elsewhere else _device(str(cfg.trainer.accelerator))
    if device is None:
        return PLAIN
    images = max(int(cfg.batch_size) // ranks(cfg.trainer), 1)
    what = {
        "backbone": OmegaConf.to_container(cfg.backbone, resolve=True),
        "images": images,
        "device": _named(device),
        "versions": [torch.__version__, timm.__version__],
    }
    path = cache_folder() / "precision" / f"{sha256_record(what)[:24]}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with held(path):  # two that time at once would disturb each other, and might disagree
            found = _read(path)
            if found is None:
                seconds = timed(cfg, device, images)
                found = MIXED if seconds[PLAIN] >= GAIN * seconds[MIXED] else PLAIN
                write_json(path, what | {"seconds": seconds, "precision": found})
            return found
    except (OSError, FullDiskError, UserError, RuntimeError):
        return PLAIN  # no room for a file or for the model, no such operation: the run will say so


def _read(path: Path) -> str | None:
    with suppress(OSError, ValueError, KeyError):
        return str(read_json(path)["precision"])
    return None


def timed(cfg: DictConfig, device: torch.device, images: int) -> dict[str, float]:
    """Return the seconds of the quickest training step in either precision, taken in turn.

    Others than the quickest measure what else the machine did.

    Args:
        cfg: of the run.
        device: where it trains.
        images: of a step.
    """
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    try:
        torch.set_num_threads(cfg.trainer.threads or threads)
        step = _step(cfg, device, images)
        taken: dict[str, list[float]] = {PLAIN: [], MIXED: []}
        began = time.perf_counter()
        for number in range(ROUNDS[1] + 1):
            for name, seconds in taken.items():
                started = time.perf_counter()
                step(name == MIXED)
                seconds.append(time.perf_counter() - started)
            passed = time.perf_counter() - began
            if number and passed > (QUICK_SECONDS if number >= ROUNDS[0] else MOST_SECONDS):
                break
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    return {name: min(seconds[1:]) for name, seconds in taken.items()}


def _step(cfg: DictConfig, device: torch.device, images: int) -> Callable[[bool], None]:
    given = resolve_preprocessing(cfg.backbone)
    backbone = open_backbone(cfg.backbone, given.size)
    model: Any = nn.Sequential(backbone, LinearHead(feature_width(backbone), CLASSES)).train()
    form = torch.channels_last if cfg.trainer.channels_last else torch.contiguous_format
    model = lay_out(model, channels_last=cfg.trainer.channels_last).to(device)
    noise = torch.randn(images, len(given.mean), given.size, given.size)
    batch = noise.to(device, memory_format=form)
    labels = torch.arange(images, device=device) % CLASSES
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(mixed: bool) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = cross_entropy(model(batch).float(), labels)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def _device(accelerator: str) -> torch.device | None:
    """Return the device that a run trains on, if it computes in bf16 by itself."""
    cuda = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if cuda:
        there = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.device("cuda") if there else None
    if accelerator not in ("auto", "cpu") or torch.backends.mps.is_available():
        return None
    return torch.device("cpu") if cpu_has_bf16() else None


@lru_cache(maxsize=1)
def cpu_has_bf16() -> bool:
    """Whether this machine's CPU computes in bf16 by itself."""
    capabilities: Any = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in IN_HARDWARE)


def _named(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    capabilities: Any = getattr(torch.cpu, "get_capabilities", dict)()
    return f"{capabilities.get('cpu_name')} {torch.backends.cpu.get_cpu_capability()}"
