"""The one file that holds a target's splits; its SHA-256 is checked by every reader."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transferlab.datasets.base import SPLITS
from transferlab.errors import UserError
from transferlab.records import replacing

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Splits:
    """Positions in the index, sorted, disjoint.

    Attributes:
        train: what subsets are drawn from.
        validation: chooses checkpoints and settings.
        test: opened once.
        sha256: of the three and, when there are any, of the groups that bound them.
    """

    train: Ints
    validation: Ints
    test: Ints
    sha256: str


def parts_of(splits: Splits) -> dict[str, Ints]:
    """Return the three splits by name."""
    return {"train": splits.train, "validation": splits.validation, "test": splits.test}


def digest(parts: Mapping[str, Ints], groups: Ints | None) -> str:
    """Hex SHA-256 of the splits; groups count, since subsets and verdicts go by them.

    The first half covers the positions, so that a reader can check them without the groups.
    """
    positions = _digest_positions(parts)
    bound = "none" if groups is None else hashlib.sha256(_plain(groups)).hexdigest()
    return positions[:32] + hashlib.sha256(f"{positions}/{bound}".encode()).hexdigest()[:32]


def write_splits(path: Path, splits: Splits) -> None:
    """Write the index file (``.npz``), whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            train=splits.train,
            validation=splits.validation,
            test=splits.test,
            sha256=np.array(splits.sha256),
        )


def read_splits(path: Path) -> Splits:
    """Read an index file and verify it.

    Raises:
        UserError: the file is missing, damaged, or its positions don't match its SHA-256.
    """
    try:
        # From memory: numpy leaves a damaged file open.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            parts = {name: stored[name].astype(np.int64) for name in SPLITS}
            sha = str(stored["sha256"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"the split file {path} can't be read ({error}). {_REMEDY}") from error
    if _digest_positions(parts)[:32] != sha[:32]:
        raise UserError(f"the split file {path} doesn't match its SHA-256. {_REMEDY}")
    return Splits(parts["train"], parts["validation"], parts["test"], sha256=sha)


_REMEDY = "Remove it, and the same splits are drawn again."


def _digest_positions(parts: Mapping[str, Ints]) -> str:
    total = hashlib.sha256()
    for name in SPLITS:
        total.update(f"{name}:{len(parts[name])}:".encode() + _plain(parts[name]))
    return total.hexdigest()


def _plain(values: Ints) -> bytes:
    return np.ascontiguousarray(values, dtype="<i8").tobytes()
