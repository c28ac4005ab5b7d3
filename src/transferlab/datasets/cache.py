"""Images decoded once into a memory-mapped file, shared by every run that reads them."""

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transferlab.cache import shared_lock
from transferlab.datasets.base import Dataset, Index
from transferlab.datasets.npy import check_of, read_images, write_images
from transferlab.datasets.opening import BrokenImageError, broken
from transferlab.datasets.policy import ImagePolicy, to_uint8
from transferlab.errors import UserError, nearest
from transferlab.records import read_json, sha256, sha256_record, write_json

VERSION = 1
"""Raised by hand when decoding changes, so that old caches are made anew."""

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
_CHUNK = 256  # images decoded between two writes: bounds the memory, keeps the order
_TRIED = 32  # images decoded before the choice between one thread and several
_WORTH_A_THREAD = 0.001  # seconds an image

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImageSpec:
    """The size that images are brought to.

    Attributes:
        size: height and width in pixels after the centre crop.
        interpolation: timm's name of the resampling filter; always antialiased.
        crop_pct: share of the resized image that the crop keeps, in (0, 1].
    """

    size: int
    interpolation: str = "bicubic"
    crop_pct: float = 1.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: a value is unknown or out of range.
        """
        if self.size < 1:
            raise UserError(f"`image_size={self.size}` must be 1 pixel or more.")
        if not 0 < self.crop_pct <= 1:
            raise UserError(f"`crop_pct={self.crop_pct}` must lie in (0, 1].")
        if self.interpolation not in INTERPOLATIONS:
            near = nearest(self.interpolation, INTERPOLATIONS)
            raise UserError(f"interpolation {self.interpolation!r} is unknown; {near}.")


@dataclass(frozen=True)
class Decoded:
    """A dataset's images at one size.

    Attributes:
        images: (N, C, H, W) uint8, memory-mapped and read-only; C is 1 if all are grey, else 3.
        index: of the N images that could be read.
        content: N SHA-256 in hex, of the pixels at full resolution.
        skipped: ids of broken images that were left out.
        fingerprint: SHA-256 of contents, labels, class names and official splits in order; the
            same wherever the data lie and whatever their files are called.
    """

    images: NDArray[np.uint8]
    index: Index
    content: tuple[str, ...]
    skipped: tuple[str, ...]
    fingerprint: str


def decode(
    dataset: Dataset,
    index: Index,
    spec: ImageSpec,
    policy: ImagePolicy,
    folder: Path,
    *,
    progress: Progress | None = None,
) -> Decoded:
    """Return the decoded images, made once for each (stamp, spec, policy) under a lock.

    A decode that is killed leaves nothing that a later one would trust; a damaged cache is made
    again.

    Args:
        dataset: where the images come from.
        index: the dataset's own.
        spec: the size.
        policy: what to do with unusual and broken images.
        folder: where decoded data live; made if it's missing.
        progress: called with (images done, images in all) now and then while decoding.

    Raises:
        UserError: an image is broken or refused by the policy, or none is left.
    """
    key = sha256_record([VERSION, index.stamp, len(index), asdict(spec), asdict(policy)])[:32]
    images, notes = folder / f"{key}.npy", folder / f"{key}.json"
    record = _trusted(images, notes)
    if record is None:
        rows = _rows(dataset, index, spec, policy, progress)
        try:
            record = _make_alone(images, notes, rows)
        except OSError as error:  # of images they are BrokenImageErrors
            raise UserError(
                f"decoded images can't be written to {folder} ({error.strerror or error}). Make "
                "room there, or set TRANSFERLAB_CACHE to another folder."
            ) from error
    return _bind(images, index, record)


Row = tuple[NDArray[np.uint8], str] | None  # pixels (C, H, W) and content; None when skipped


def _make_alone(images: Path, notes: Path, rows: Iterator[Row]) -> dict[str, Any]:
    images.parent.mkdir(parents=True, exist_ok=True)
    with shared_lock(images.with_suffix(".lock")):
        record = _trusted(images, notes)  # another process may have made it meanwhile
        return _make(images, notes, rows) if record is None else record


def _make(images: Path, notes: Path, rows: Iterator[Row]) -> dict[str, Any]:
    for left in images.parent.glob(f".{images.stem}.*.tmp"):
        left.unlink(missing_ok=True)  # of a decode that was killed; the lock is ours
    content: list[str] = []
    skipped: list[int] = []

    def good() -> Iterator[NDArray[np.uint8]]:
        for position, row in enumerate(rows):
            if row is None:
                skipped.append(position)
            else:
                content.append(row[1])
                yield row[0]

    write_images(images, good())
    record = {"check": check_of(images), "content": content, "skipped": skipped}
    # Compact, and written last: a cache without its notes isn't trusted.
    write_json(notes, {"sha256": sha256(json.dumps(record)), "record": json.dumps(record)})
    return record


def _trusted(images: Path, notes: Path) -> dict[str, Any] | None:
    """Return what is noted about a cache that is whole, else None."""
    try:
        outer = read_json(notes)
        if sha256(outer["record"]) != outer["sha256"]:
            return None
        record: dict[str, Any] = json.loads(outer["record"])
        return record if record["check"] == check_of(images) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _bind(images: Path, index: Index, record: dict[str, Any]) -> Decoded:
    kept = np.setdiff1d(np.arange(len(index)), record["skipped"])
    if len(kept) == 0:
        raise UserError(f"all {len(index)} images are broken; {index.ids[0]} is the first one.")
    rest = index if len(kept) == len(index) else _choose(index, kept)
    content = tuple(record["content"])
    fingerprint = sha256(json.dumps([content, rest.labels.tolist(), rest.classes, rest.splits]))
    skipped = tuple(index.ids[position] for position in record["skipped"])
    return Decoded(read_images(images), rest, content, skipped, fingerprint)


def _choose(index: Index, kept: NDArray[np.int64]) -> Index:
    def take(values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(values[position] for position in kept)

    return replace(
        index,
        ids=take(index.ids),
        labels=index.labels[kept],
        splits=None if index.splits is None else take(index.splits),
        metadata={name: take(column) for name, column in index.metadata.items()},
    )


def _rows(
    dataset: Dataset,
    index: Index,
    spec: ImageSpec,
    policy: ImagePolicy,
    progress: Progress | None,
) -> Iterator[Row]:
    """Decode in order; several at a time where images are big enough to be worth a thread."""

    def one(position: int) -> Row:
        try:
            return _decode_one(dataset, index, position, spec, policy)
        except BrokenImageError:
            if policy.broken == "refuse":
                raise
            return None

    total = len(index)
    yield from map(one, range(min(1, total)))  # not timed: it pays for imports and first reads
    begun = time.perf_counter()
    yield from map(one, range(1, min(_TRIED, total)))
    # Pillow lets go of the interpreter while it decodes, but small images gain less by that than
    # they lose: 32-pixel JPEGs take 0.16 ms each in one thread and 0.30 ms in two.
    slow = time.perf_counter() - begun > _TRIED * _WORTH_A_THREAD
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(_TRIED, total, _CHUNK):
            chunk = range(start, min(start + _CHUNK, total))
            yield from (pool.map if slow else map)(one, chunk)
            if progress is not None:
                progress(chunk.stop, total)


def _decode_one(
    dataset: Dataset, index: Index, position: int, spec: ImageSpec, policy: ImagePolicy
) -> Row:
    try:
        image = dataset.image(position)
    except BrokenImageError:
        raise
    except UserError as error:  # a dataset of the user's own may raise the plain kind
        raise BrokenImageError(str(error)) from error
    except OSError as error:
        raise broken(index.ids[position], error) from error
    name = str(getattr(image, "filename", "") or index.ids[position])
    pixels = to_uint8(image, policy, name)  # (H, W, C)
    content = sha256(f"{pixels.shape}".encode() + pixels.tobytes())
    return resize(pixels, spec), content


def resize(pixels: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.uint8]:
    """Resize the shorter side to ``size / crop_pct`` and crop the centre.

    Every rounding is that of timm's evaluation transform, which published weights were scored with.

    Args:
        pixels: (H, W, C) uint8, C 1 or 3.
        spec: the size to reach.

    Returns:
        (C, size, size) uint8.
    """
    height, width = pixels.shape[:2]
    short = int(spec.size / spec.crop_pct)
    new = (short * width // min(height, width), short * height // min(height, width))
    if new != (width, height):
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        pixels = np.asarray(image.resize(new, Image.Resampling[spec.interpolation.upper()]))
    left, top = (round((side - spec.size) / 2) for side in new)
    cropped = pixels[top : top + spec.size, left : left + spec.size]
    return np.ascontiguousarray(np.atleast_3d(cropped).transpose(2, 0, 1))
