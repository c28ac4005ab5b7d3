import numpy as np
import pytest

from transferlab.datasets.corruption import CORRUPTIONS, corrupt_images, corrupt_labels
from transferlab.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 3, 5, 4), dtype=np.uint8)
POSITIONS = np.arange(10, 16)


def test_random_labels_keep_the_class_counts() -> None:
    labels = np.repeat(np.arange(4), [40, 30, 20, 10])
    mixed = corrupt_labels(labels, "random_labels", 1)
    assert np.array_equal(np.bincount(mixed), np.bincount(labels))
    assert (mixed != labels).mean() > 0.5
    assert np.array_equal(mixed, corrupt_labels(labels, "random_labels", 1))
    assert not np.array_equal(mixed, corrupt_labels(labels, "random_labels", 2))


@pytest.mark.parametrize("kind", ["none", "permuted_pixels", "noise"])
def test_other_kinds_keep_the_labels(kind: str) -> None:
    labels = np.arange(5)
    assert np.array_equal(corrupt_labels(labels, kind, 1), labels)


@pytest.mark.parametrize("kind", ["none", "random_labels"])
def test_these_kinds_keep_the_images(kind: str) -> None:
    assert np.array_equal(corrupt_images(IMAGES, POSITIONS, kind, 1), IMAGES)


def test_pixels_move_together_and_alike_in_all_images() -> None:
    moved = corrupt_images(IMAGES, POSITIONS, "permuted_pixels", 1)

    def pixels(images: np.ndarray) -> np.ndarray:  # (B, H * W, C)
        return images.reshape(*images.shape[:2], -1).transpose(0, 2, 1)

    before, after = pixels(IMAGES), pixels(moved)
    order = [int(np.flatnonzero((before[0] == row).all(axis=1))[0]) for row in after[0]]
    assert sorted(order) == list(range(20))
    assert order != list(range(20))
    assert np.array_equal(before[:, order], after)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_an_image_does_not_depend_on_its_batch(kind: str) -> None:
    whole = corrupt_images(IMAGES, POSITIONS, kind, 3)
    for row in range(6):
        alone = corrupt_images(IMAGES[row : row + 1], POSITIONS[row : row + 1], kind, 3)
        assert np.array_equal(alone[0], whole[row])


def test_noise_is_uniform_and_differs_by_image_and_seed() -> None:
    images = np.zeros((50, 1, 32, 32), dtype=np.uint8)
    noise = corrupt_images(images, np.arange(50), "noise", 0)
    assert noise.mean() == pytest.approx(127.5, abs=1)
    assert len(np.unique(noise)) == 256
    assert len({row.tobytes() for row in noise}) == 50
    assert not np.array_equal(noise, corrupt_images(images, np.arange(50), "noise", 1))
    assert images.max() == 0


def test_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UserError, match="nearest: noise"):
        corrupt_labels(np.arange(2), "noize", 0)
    with pytest.raises(UserError, match="nearest: noise"):
        corrupt_images(IMAGES, POSITIONS, "noize", 0)
