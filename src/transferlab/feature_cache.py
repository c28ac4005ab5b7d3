"""Activations on disk: what a frozen part computed for some images, shared by all runs."""

import json
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from transferlab.errors import FullDiskError
from transferlab.lease import held
from transferlab.records import clear_leftovers, replacing

ENDING = ".safetensors"


@dataclass(frozen=True)
class Activations:
    """What leaves a frozen part, for some items in order.

    Attributes:
        values: tensors of one row an item; maps as (n, H, W, C).
        maps: which of them are (n, C, H, W) to the model.
        multiply_adds: that it took to compute them.
    """

    values: tuple[Tensor, ...]
    maps: tuple[bool, ...]
    multiply_adds: int

    @property
    def bytes(self) -> int:
        """How much memory they take."""
        return sum(value.numel() * value.element_size() for value in self.values)


@dataclass(frozen=True)
class Entry:
    """One file of the cache: its path, size in bytes, and when it was last used (seconds)."""

    path: Path
    size: int
    used: float

    def remove(self) -> None:
        """Remove the file; whoever reads it now reads on."""
        self.path.unlink(missing_ok=True)
        for lease in self.path.parent.glob(f".{self.path.name}.lease.*"):
            lease.unlink(missing_ok=True)  # two that compute the same harm nothing


class FeatureCache:
    """A folder of activations, each in a file named by what it follows from.

    Files are written whole, never changed, and checked when read, so that any number of processes
    may share the folder. Beyond its bound those go that were not used for longest. A folder that
    can't be written costs speed, and nothing else.

    Args:
        folder: made where it is missing.
        most_bytes: that its files may take.
    """

    def __init__(self, folder: Path, most_bytes: float) -> None:
        self.folder, self.most_bytes = folder, most_bytes

    def get(
        self, key: str, compute: Callable[[], Activations], device: torch.device
    ) -> Activations:
        """Return the activations of that name, computed by one process where none has them yet."""
        path = self.folder / f"{key}{ENDING}"
        found = _read(path, device)
        if found is not None:
            return found
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with held(path):
                return _read(path, device) or self._made(path, compute)
        except OSError:
            return compute()

    def _made(self, path: Path, compute: Callable[[], Activations]) -> Activations:
        made = compute()
        if made.bytes <= self.most_bytes:
            with suppress(OSError, FullDiskError, SafetensorError):
                self._make_room(made.bytes)
                _write(path, made)
        return made

    def _make_room(self, size: int) -> None:
        clear_leftovers(self.folder)
        entries = self.entries()
        taken = sum(entry.size for entry in entries)
        for entry in entries:
            if taken + size <= self.most_bytes:
                break
            entry.remove()
            taken -= entry.size

    def entries(self) -> list[Entry]:
        """Return the files that are there, those first that were not used for longest."""
        found = []
        for path in self.folder.glob(f"*{ENDING}"):
            with suppress(FileNotFoundError):  # another process may clear as well
                facts = path.stat()
                found.append(Entry(path, facts.st_size, facts.st_mtime))
        return sorted(found, key=lambda entry: (entry.used, entry.path))


def _write(path: Path, made: Activations) -> None:
    values = {str(i): v.detach().cpu().contiguous() for i, v in enumerate(made.values)}
    notes = {
        "maps": json.dumps(made.maps),
        "multiply_adds": str(made.multiply_adds),
        "check": str(_check(values)),
    }
    with replacing(path) as temporary:
        save_file(values, temporary, notes)


def _read(path: Path, device: torch.device) -> Activations | None:
    """Return what a file holds; None where it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            notes: dict[str, str] = file.metadata()
            values = {str(i): file.get_tensor(str(i)) for i in range(len(file.keys()))}
        if int(notes["check"]) != _check(values):
            return None
        os.utime(path)
        maps: Any = json.loads(notes["maps"])
        there = tuple(value.to(device) for value in values.values())
        return Activations(there, tuple(maps), int(notes["multiply_adds"]))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None


def _check(values: dict[str, Tensor]) -> int:
    """Return a checksum of tensors on the CPU; it takes about a second a gigabyte."""
    found = 0
    for value in values.values():
        content: Any = value.reshape(-1).view(torch.uint8).numpy()
        found = zlib.crc32(content, found)
    return found
