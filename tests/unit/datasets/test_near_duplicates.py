"""Copies under another file are found; images that only resemble each other are not."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from transferlab.datasets.cache import ImageSpec, resize
from transferlab.datasets.digits import Digits
from transferlab.datasets.glyphs import Glyphs
from transferlab.datasets.near_duplicates import (
    DIFFERENCE,
    Signatures,
    cached_signatures,
    near_copies,
    sign,
)

Pixels = NDArray[np.uint8]


def signed(images: Pixels) -> Signatures:
    return sign(lambda positions: images[positions], len(images))


def pictures(count: int = 40, size: int = 64, seed: int = 0) -> Pixels:
    """Smooth colour images, each of its own random blobs: (N, 3, size, size)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
    large = [Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC) for one in coarse]
    return np.stack([np.asarray(one).transpose(2, 0, 1) for one in large])


def changed(images: Pixels, change: Callable[[Image.Image], Image.Image]) -> Pixels:
    made = [np.asarray(change(Image.fromarray(one.transpose(1, 2, 0)))) for one in images]
    return np.stack(made).transpose(0, 3, 1, 2)


def jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def save(image: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        return Image.open(stream)

    return save


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "the same": lambda image: image,
    "recompressed": jpeg(60),
    "halved and back": lambda image: image.resize((32, 32), 3).resize((64, 64), 3),
    "darker": lambda image: image.point(lambda value: int(0.85 * value)),
    "less contrast": lambda image: image.point(lambda value: int(40 + 0.7 * value)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_copies_are_found_each_as_its_own(name: str) -> None:
    images = pictures()
    found = near_copies(signed(changed(images, CHANGES[name])), signed(images))
    assert found == {number: number for number in range(len(images))}


def test_other_images_and_mirrored_ones_are_no_copies() -> None:
    images = pictures()
    assert near_copies(signed(pictures(seed=1)), signed(images)) == {}
    assert near_copies(signed(images[..., ::-1]), signed(images)) == {}
    assert near_copies(signed(255 - images), signed(images)) == {}


def test_grey_and_colour_versions_of_one_image_are_copies() -> None:
    images = pictures(8)
    luma = np.round(np.tensordot([0.299, 0.587, 0.114], images, axes=(0, 1))).astype(np.uint8)
    assert near_copies(signed(luma[:, None]), signed(images)) == {k: k for k in range(8)}


def test_flat_images_are_never_near_copies() -> None:
    noise = np.random.default_rng(0).integers(0, 3, (6, 1, 32, 32), dtype=np.uint8)
    flat = np.concatenate([noise, noise + 100, np.full((2, 1, 32, 32), 7, dtype=np.uint8)])
    assert near_copies(signed(flat), signed(flat)) == {}


def test_images_of_little_contrast_are_told_apart() -> None:
    faint = (pictures() // 8 + 100).astype(np.uint8)
    other = (pictures(seed=1) // 8 + 100).astype(np.uint8)
    assert near_copies(signed(faint), signed(other)) == {}
    assert len(near_copies(signed(faint), signed(faint))) == len(faint)


def test_the_product_of_signs_counts_bits_as_xor_does() -> None:
    """A copy whose hash is 8 bits off counts, one that is 9 off does not."""
    one = signed(pictures(1))
    for bits, expected in ((8, 1), (9, 0)):
        flipped = np.unpackbits(one.hashes, axis=1)
        flipped[0, :bits] ^= 1
        other = Signatures(np.packbits(flipped, axis=1), one.thumbnails)
        assert len(near_copies(one, other)) == expected


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(50)
    twice = np.concatenate([images[25:], images])
    whole = near_copies(signed(images), signed(twice))
    for name, size in (("_ROWS", 7), ("_COLUMNS", 11), ("_PAIRS", 3), ("_READ", 13)):
        monkeypatch.setattr(f"transferlab.datasets.near_duplicates.{name}", size)
    assert near_copies(signed(images), signed(twice)) == whole
    assert len(whole) == 50


def test_signatures_are_kept_and_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    images, reads = pictures(4), []

    def read(positions: NDArray[np.int64]) -> Pixels:
        reads.append(len(positions))
        return images[positions]

    path = tmp_path / "signatures.npz"
    first = cached_signatures(path, read, 4)
    again = cached_signatures(path, read, 4)
    assert len(reads) == 1
    assert np.array_equal(first.hashes, again.hashes)
    path.write_bytes(path.read_bytes()[:100])
    mended = cached_signatures(path, read, 4)
    assert len(reads) == 2
    assert np.array_equal(first.thumbnails, mended.thumbnails)


def decoded(dataset: Digits | Glyphs, size: int) -> Pixels:
    spec, count = ImageSpec(size, "bicubic", 1.0), len(dataset.index())
    raw = (np.atleast_3d(np.asarray(dataset.image(position))) for position in range(count))
    return np.stack([resize(pixels, spec) for pixels in raw])


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_no_digit_is_taken_for_another(size: int) -> None:
    """1.6 million pairs of 8x8 images, many of them alike: the hash alone takes thousands."""
    digits = signed(decoded(Digits(), size))
    half = np.arange(0, 1797, 2), np.arange(1, 1797, 2)
    assert near_copies(digits[half[0]], digits[half[1]]) == {}


@pytest.mark.slow
def test_no_glyph_is_taken_for_another_or_for_a_digit() -> None:
    glyphs = signed(decoded(Glyphs(300), 32))
    every = np.arange(7800)
    assert near_copies(glyphs[every[::4]], glyphs[np.delete(every, every[::4])]) == {}
    assert near_copies(signed(decoded(Digits(), 32)), glyphs) == {}


def test_the_threshold_is_what_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = signed(decoded(Digits(), 32))
    half = np.arange(0, 1797, 2), np.arange(1, 1797, 2)
    monkeypatch.setattr("transferlab.datasets.near_duplicates.DIFFERENCE", 10 * DIFFERENCE)
    assert len(near_copies(digits[half[0]], digits[half[1]])) > 100
