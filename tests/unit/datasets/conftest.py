"""Tiny images and folders for the tests of the datasets."""

import io
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from transferlab.datasets.base import Index

MakeImage = Callable[..., Path]
MakeFolder = Callable[..., Path]


@pytest.fixture
def make_image() -> MakeImage:
    """Write a small image whose content follows from its name."""

    def make(path: Path, mode: str = "RGB", size: tuple[int, int] = (10, 8)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(zlib.crc32(path.as_posix().encode()))
        channels = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,), "CMYK": (4,)}[mode]
        pixels = random.integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
        Image.fromarray(pixels, mode=None if mode != "CMYK" else "CMYK").save(path)
        return path

    return make


@pytest.fixture
def make_folder(make_image: MakeImage) -> MakeFolder:
    """Make a folder of classes: ``make_folder(root, {"cat": 3, "dog": 2})``."""

    def make(root: Path, classes: dict[str, int], ending: str = ".png") -> Path:
        for name, count in classes.items():
            for item in range(count):
                make_image(root / name / f"img_{item:03d}{ending}")
        return root

    return make


@pytest.fixture
def png16() -> Callable[[NDArray[np.uint16]], bytes]:
    """Encode a 16-bit RGB PNG, which Pillow can't write."""

    def encode(pixels: NDArray[np.uint16]) -> bytes:
        height, width, _ = pixels.shape
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
        header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )

    return encode


@pytest.fixture
def png_bytes() -> Callable[[int], bytes]:
    """Encode a small image that differs for every number."""

    def encode(number: int) -> bytes:
        stream = io.BytesIO()
        pixels = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    return encode


@pytest.fixture
def make_index() -> Callable[..., Index]:
    """Make an index from class names per image."""

    def make(
        labels: Iterable[int],
        ids: Iterable[str] | None = None,
        splits: Iterable[str] | None = None,
        metadata: dict[str, tuple[str, ...]] | None = None,
    ) -> Index:
        numbers = np.array(list(labels), dtype=np.int64)
        names = tuple(f"c{label}" for label in range(int(numbers.max()) + 1))
        own = [f"{names[label]}/{item:04d}.png" for item, label in enumerate(numbers)]
        return Index(
            ids=tuple(ids) if ids is not None else tuple(own),
            labels=numbers,
            classes=names,
            stamp="test",
            splits=tuple(splits) if splits is not None else None,
            metadata=metadata or {},
        )

    return make
