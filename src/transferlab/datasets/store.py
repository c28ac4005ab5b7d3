"""The images of one dataset as a run reads them: decoded, perhaps corrupted, by position."""

import mmap
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transferlab.datasets.base import Dataset, Index
from transferlab.datasets.cache import Decoded, ImageSpec, Progress, decode
from transferlab.datasets.corruption import check_corruption, corrupt_images, corrupt_labels
from transferlab.datasets.policy import ImagePolicy
from transferlab.records import sha256_record

HELD = 64 * 2**20
"""Bytes read from a file of images after which its pages are given back."""


class ImageStore:
    """N images and their labels.

    Args:
        decoded: the images.
        corruption: one of ``transferlab.datasets.corruption.CORRUPTIONS``.
        corruption_seed: draws the corruption.

    Attributes:
        labels: (N,) int64 in [0, C), corrupted if so asked.
        classes: C names.
        ids: N item names.
        index: ids, labels, classes, official splits and metadata together.
        content: N hashes of the images before any corruption.
        skipped: ids of broken images that were left out.
        fingerprint: SHA-256 of content, labels, official splits and corruption.
        shape: (C, H, W) of an image.
    """

    def __init__(
        self, decoded: Decoded, corruption: str = "none", corruption_seed: int = 0
    ) -> None:
        check_corruption(corruption)
        self._pixels = np.asarray(decoded.images)  # still the file, without memmap's own ways
        self._map: mmap.mmap | None = getattr(decoded.images, "_mmap", None)
        self._read = 0
        self._corruption, self._seed = corruption, corruption_seed
        labels = corrupt_labels(decoded.index.labels, corruption, corruption_seed)
        self.index: Index = replace(decoded.index, labels=labels)
        self.labels, self.classes, self.ids = labels, decoded.index.classes, decoded.index.ids
        self.content, self.skipped = decoded.content, decoded.skipped
        self.shape: tuple[int, ...] = decoded.images.shape[1:]
        self.fingerprint = decoded.fingerprint
        if corruption != "none":
            self.fingerprint = sha256_record([decoded.fingerprint, corruption, corruption_seed])

    def __len__(self) -> int:
        """Return the number of images, N."""
        return len(self.ids)

    @property
    def shown(self) -> tuple[str, ...]:
        """N names of what an image shows, corruption included; equal ones look the same."""
        if self._corruption not in ("permuted_pixels", "noise"):
            return self.content
        return tuple(f"{own}/{self._corruption}/{self._seed}" for own in self.content)

    def images(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read a batch into memory.

        Args:
            positions: (B,) in [0, N).

        Returns:
            (B, C, H, W) uint8, a copy that may be written to.
        """
        chosen = self._pixels[positions]
        self._let_go(max(chosen.nbytes, len(chosen) * mmap.PAGESIZE))
        return corrupt_images(chosen, positions, self._corruption, self._seed)

    def _let_go(self, read: int) -> None:
        """Give pages of the file back now and then, or this process would come to hold them all.

        They stay in the system's cache, where another reader finds them as fast.
        """
        self._read += read
        if self._read > HELD and self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
            self._read = 0


def open_store(
    dataset: Dataset,
    *,
    spec: ImageSpec,
    policy: ImagePolicy,
    corruption: str = "none",
    corruption_seed: int = 0,
    folder: Path,
    progress: Progress | None = None,
) -> ImageStore:
    """Open a dataset, decoding its images if no process has done so before.

    Args:
        dataset: what to open.
        spec: size of the images.
        policy: what to do with unusual and broken images.
        corruption: one of ``transferlab.datasets.corruption.CORRUPTIONS``.
        corruption_seed: draws the corruption.
        folder: where decoded data live.
        progress: called with (images done, images in all) while decoding.

    Raises:
        UserError: the data are missing or inconsistent, an image is broken or refused, or the
            corruption is unknown.
    """
    check_corruption(corruption)  # before minutes of decoding
    decoded = decode(dataset, dataset.index(), spec, policy, folder, progress=progress)
    return ImageStore(decoded, corruption, corruption_seed)
