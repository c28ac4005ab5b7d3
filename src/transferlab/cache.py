"""Where what runs share lies: decoded images, split files, features, source runs."""

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PARTS = {
    "decoded": "images, decoded and resized once",
    "features": "what frozen parts computed",
    "splits": "drawn splits",
    "near_duplicates": "images that look alike",
    "precision": "which precision a model was fastest in",
    "baselines": "scores of simple classifiers on pixels",
    "runs": "source runs, with their weights",
}
"""What the cache holds, by folder. All but the runs is made again where it is missing."""


def cache_folder() -> Path:
    """Return ``$TRANSFERLAB_CACHE``, or ``~/.cache/transferlab``."""
    given = os.environ.get("TRANSFERLAB_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "transferlab"


@dataclass(frozen=True)
class Holding:
    """What a part of the cache holds: its name, files, and bytes on the disk."""

    part: str
    files: int
    bytes: int


def holdings(folder: Path) -> list[Holding]:
    """Count what each part of a cache holds; leases and unfinished files count too."""
    found = []
    for part in PARTS:
        sizes = []
        for path in (folder / part).rglob("*"):
            with suppress(FileNotFoundError):  # others may be at work
                if path.is_file() and not path.is_symlink():
                    sizes.append(path.stat().st_size)
        found.append(Holding(part, len(sizes), sum(sizes)))
    return found


def clear(folder: Path, parts: Iterable[str]) -> int:
    """Remove parts of a cache; returns how many bytes that freed.

    What another process reads stays readable to it, and what it makes meanwhile may stay.
    """
    chosen = set(parts)
    before = [holding for holding in holdings(folder) if holding.part in chosen]
    for part in chosen:
        shutil.rmtree(folder / part, ignore_errors=True)
    after = {holding.part: holding.bytes for holding in holdings(folder)}
    return sum(holding.bytes - after[holding.part] for holding in before)
