"""Images that are the same photograph under another file: found across splits and datasets.

A 64-bit dHash picks candidates, a mean difference of standardised thumbnails confirms them. The
hash alone would not do: on the 8x8 digits, tens of thousands of pairs of different images lie
within its usual radius, and flat images all share one hash.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from transferlab.records import replacing

VERSION = 1
"""Raised by hand when the rule changes, so that old signatures and counts are made anew."""

RADIUS = 8
"""Bits at most in which the hashes of two copies differ; re-encoding moves 0 to 4 of the 64."""
DIFFERENCE = 0.03
"""Mean absolute difference of two copies at most, in standard deviations of the thumbnail.

Copies saved as JPEG of quality 50, halved in size and back, or with other brightness or contrast
lie below it at 96 pixels, at 32 pixels those of quality 75; shifted or cropped ones do not. The
closest of 1.6 million pairs of different digits differ by 0.051, and of 127 million pairs of
glyphs none lies below it.
"""
FLAT = 2.0
"""Grey levels of spread below which an image shows nothing to compare: copies must be exact."""

_NOISE = 2.0  # grey levels by which neighbours must differ to count: empty areas stay 0 bits
_THUMBNAIL = 10  # cells a side
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_READ, _ROWS, _COLUMNS, _PAIRS = 2048, 512, 16384, 100_000  # at a time: bound the memory

Ints = NDArray[np.int64]
Read = Callable[[Ints], NDArray[np.uint8]]


@dataclass(frozen=True)
class Signatures:
    """What is compared of N images.

    Attributes:
        hashes: (N, 8) uint8, the 64 bits of a dHash.
        thumbnails: (N, 100) float32 of mean 0 and standard deviation 1; 0 where an image is flat.
    """

    hashes: NDArray[np.uint8]
    thumbnails: NDArray[np.float32]

    def __getitem__(self, positions: Ints) -> "Signatures":
        """Return those at ``positions``."""
        return Signatures(self.hashes[positions], self.thumbnails[positions])


def sign(read: Read, count: int) -> Signatures:
    """Sign every image of a store.

    Args:
        read: (B,) positions to (B, C, H, W) uint8, C 1 or 3.
        count: N.
    """
    blocks = [np.arange(start, min(start + _READ, count)) for start in range(0, count, _READ)]
    made = [_sign(read(block)) for block in blocks]
    hashes, thumbnails = zip(*made, strict=True)
    return Signatures(np.concatenate(hashes), np.concatenate(thumbnails))


def cached_signatures(path: Path, read: Read, count: int) -> Signatures:
    """Return the signatures that ``path`` holds, made if it is missing or damaged."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as found:
            known = Signatures(found["hashes"], found["thumbnails"])
        if len(known.hashes) == len(known.thumbnails) == count:
            return known
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        pass
    made = sign(read, count)
    with replacing(path) as temporary, temporary.open("wb") as output:
        np.savez(output, hashes=made.hashes, thumbnails=made.thumbnails)
    return made


def near_copies(images: Signatures, among: Signatures) -> dict[int, int]:
    """Find the images that have a near copy among others.

    Every pair of hashes is compared, as blocks of one matrix product: 64 less twice the Hamming
    distance is the product of two vectors of -1 and 1.

    Args:
        images: M of them, such as a test split's.
        among: N others.

    Returns:
        image -> the first of the others that is a copy of it; images without one are left out.
    """
    rows, columns = _signs(images), _signs(among)
    found: dict[int, int] = {}
    for top in range(0, len(rows), _ROWS):
        for left in range(0, len(columns), _COLUMNS):
            products = rows[top : top + _ROWS] @ columns[left : left + _COLUMNS].T
            one, other = np.nonzero(products >= 64 - 2 * RADIUS)
            for a, b in _confirmed(images, among, one + top, other + left):
                found.setdefault(a, b)
    return found


def _confirmed(
    images: Signatures, among: Signatures, one: Ints, other: Ints
) -> Iterator[tuple[int, int]]:
    for start in range(0, len(one), _PAIRS):
        a, b = one[start : start + _PAIRS], other[start : start + _PAIRS]
        first, second = images.thumbnails[a], among.thumbnails[b]
        apart = np.abs(first - second).mean(axis=1)
        near = (apart <= DIFFERENCE) & first.any(axis=1) & second.any(axis=1)
        yield from zip(a[near].tolist(), b[near].tolist(), strict=True)


def _sign(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    values = images.astype(np.float32)
    grey = values[:, 0] if values.shape[1] == 1 else np.einsum("c,bchw->bhw", _LUMA, values)
    cells = _reduced(grey, 8, 9)
    bits = np.diff(cells, axis=2) > _NOISE
    hashes = np.packbits(bits.reshape(len(grey), 64), axis=1)
    flat = _reduced(grey, _THUMBNAIL, _THUMBNAIL).reshape(len(grey), -1)
    spread = flat.std(axis=1, keepdims=True)
    centred = flat - flat.mean(axis=1, keepdims=True)
    empty = np.zeros_like(centred)
    thumbnails = np.divide(centred, spread, out=empty, where=spread >= FLAT)
    return hashes, thumbnails.astype(np.float32)


def _reduced(grey: NDArray[np.float32], high: int, wide: int) -> NDArray[np.float32]:
    """Average (B, H, W) images over a grid of cells; a pixel on a border counts on both sides."""
    down, across = _shares(grey.shape[1], high), _shares(grey.shape[2], wide)
    return np.asarray(down @ grey @ across.T, dtype=np.float32)


def _shares(pixels: int, cells: int) -> NDArray[np.float32]:
    """Return the (cells, pixels) share that every pixel has in every cell; rows sum to 1."""
    edges, places = np.linspace(0, pixels, cells + 1), np.arange(pixels)
    inside = np.minimum(edges[1:, None], places + 1) - np.maximum(edges[:-1, None], places)
    shares = np.clip(inside, 0, None)
    whole = shares.sum(axis=1, keepdims=True)
    return np.asarray(shares / whole, dtype=np.float32)


def _signs(signatures: Signatures) -> NDArray[np.float32]:
    bits = np.unpackbits(signatures.hashes, axis=1)
    return np.where(bits, np.float32(1), np.float32(-1))
