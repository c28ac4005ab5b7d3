"""Images that two splits share, by content: found, refused, or dropped from the lesser split."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from transferlab.datasets.split_file import Splits, parts_of
from transferlab.errors import UserError

Ints = NDArray[np.int64]

_PAIRS = (("train", "test"), ("validation", "test"), ("train", "validation"))
"""Each (loser, keeper): copies leave the first, so test is never touched."""


def number_contents(content: Sequence[str]) -> Ints:
    """Number the distinct contents: integers compare faster than a million long texts.

    Args:
        content: N content hashes.

    Returns:
        (N,) int64, equal where the contents are.
    """
    known: dict[str, int] = {}
    numbers = (known.setdefault(value, len(known)) for value in content)
    return np.fromiter(numbers, dtype=np.int64, count=len(content))


def check_disjoint(splits: Splits | Mapping[str, Ints], content: Sequence[str]) -> None:
    """Check that no image is in two splits, under whatever name.

    Args:
        splits: positions of each split.
        content: N content hashes.

    Raises:
        UserError: two splits share content; the message gives the number and two positions.
    """
    parts = splits if isinstance(splits, Mapping) else parts_of(splits)
    hashes = number_contents(content)
    for loser, keeper in _PAIRS:
        shared = np.flatnonzero(np.isin(hashes[parts[loser]], hashes[parts[keeper]]))
        if len(shared):
            first = parts[loser][shared[0]]
            twin = parts[keeper][np.flatnonzero(hashes[parts[keeper]] == hashes[first])[0]]
            raise UserError(
                f"{len(shared)} images of {loser} are also in {keeper}, by content: number "
                f"{first} equals number {twin}. Remove them, or set `target.duplicates=drop`, "
                f"which drops the copies from {loser}."
            )


def without_copies(
    parts: dict[str, Ints], content: Sequence[str], *, drop: bool
) -> dict[str, Ints]:
    """Drop copies from train and validation, or refuse them.

    Args:
        parts: positions of train, validation and test.
        content: N content hashes.
        drop: whether copies may be dropped.

    Returns:
        The parts without copies.

    Raises:
        UserError: splits share content and ``drop`` is off.
    """
    if not drop:
        check_disjoint(parts, content)
        return parts
    hashes, kept = number_contents(content), dict(parts)
    for loser, keeper in _PAIRS:
        copies = np.isin(hashes[kept[loser]], hashes[kept[keeper]])
        kept[loser] = kept[loser][~copies]
    return kept
