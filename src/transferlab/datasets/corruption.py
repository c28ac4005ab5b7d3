"""Sources with nothing, or less, to teach: random labels, permuted pixels, pure noise."""

import numpy as np
from numpy.typing import NDArray

from transferlab.datasets.seeding import generator
from transferlab.errors import UserError, nearest

CORRUPTIONS = ("none", "random_labels", "permuted_pixels", "noise")


def check_corruption(kind: str) -> None:
    """Refuse an unknown kind.

    Raises:
        UserError: ``kind`` is not one of ``CORRUPTIONS``; the message names the nearest.
    """
    if kind not in CORRUPTIONS:
        raise UserError(f"corruption {kind!r} is unknown; {nearest(kind, CORRUPTIONS)}.")


def corrupt_labels(labels: NDArray[np.int64], kind: str, seed: int) -> NDArray[np.int64]:
    """Permute the labels of ``random_labels``; leave those of the other kinds.

    Args:
        labels: (N,) of the whole dataset.
        kind: one of ``CORRUPTIONS``.
        seed: draws the permutation.

    Returns:
        (N,) int64, with as many images of each class as before.

    Raises:
        UserError: ``kind`` is unknown.
    """
    check_corruption(kind)
    if kind != "random_labels":
        return labels
    return labels[generator("random labels", seed).permutation(len(labels))]


def corrupt_images(
    images: NDArray[np.uint8], positions: NDArray[np.int64], kind: str, seed: int
) -> NDArray[np.uint8]:
    """Corrupt a batch; an image's result does not depend on its batch.

    Args:
        images: (B, C, H, W).
        positions: (B,) of these images in the dataset.
        kind: one of ``CORRUPTIONS``. ``permuted_pixels`` moves the pixels of all images by one
            permutation, the channels of a pixel together; ``noise`` replaces each image by
            uniform noise of its own.
        seed: draws the permutation or the noise.

    Returns:
        (B, C, H, W) uint8.

    Raises:
        UserError: ``kind`` is unknown.
    """
    check_corruption(kind)
    if kind == "permuted_pixels":
        flat = images.reshape(*images.shape[:2], -1)
        order = generator("permuted pixels", seed).permutation(flat.shape[2])
        return np.ascontiguousarray(flat[:, :, order].reshape(images.shape))
    if kind == "noise":
        noise = np.empty_like(images)
        for row, position in enumerate(positions):
            draw = generator("noise", seed, int(position))
            noise[row] = draw.integers(0, 256, images.shape[1:], dtype=np.uint8)
        return noise
    return images
