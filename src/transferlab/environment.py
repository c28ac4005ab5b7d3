"""Where and with what a run was made: recorded, never part of its identity."""

import os
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("transferlab", "torch", "torchvision", "lightning", "timm", "hydra-core", "numpy")

SNAPSHOT_COMMIT = "COMMIT"
"""Beside the packages in a copy of the code."""


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions, commit, hardware and thread count."""
    return {
        **{name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "commit": commit(),
        "hardware": _hardware(device),
        "threads": torch.get_num_threads(),
        "host": platform.node(),
    }


@lru_cache(maxsize=1)
def commit() -> str | None:
    """Return the commit of the clone that this package runs from, ``-dirty`` if it was edited.

    A copy that was made for jobs has it in a file.
    """
    snapshot = Path(__file__).resolve().parents[1] / SNAPSHOT_COMMIT
    if snapshot.is_file():
        return snapshot.read_text().strip() or None
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + (
            "-dirty" if _git(folder, "status", "--porcelain", "-uno", "--", "src", "conf") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=9,
    )
    return done.stdout.strip()


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {os.cpu_count()} cores"


@lru_cache(maxsize=1)
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
