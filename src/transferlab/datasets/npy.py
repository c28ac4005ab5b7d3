"""Image arrays on disk: written as a stream, checked cheaply, read by memory map."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from transferlab.records import replacing

_HEADER = 128  # bytes; fixed, so that the number of images can be filled in at the end
_BLOCK = 1 << 20
_BLOCKS = 64


def write_images(path: Path, rows: Iterator[NDArray[np.uint8]]) -> None:
    """Write images into one ``.npy`` file, whole or not at all.

    The file grows image by image, since how many can be read is known only at the end. It starts
    with as many channels as the first image has; when colour appears among grey images, what is
    written so far is widened once.

    Args:
        path: the file to make.
        rows: images (C, H, W) uint8, C 1 or 3, all of one height and width.
    """
    with replacing(path) as temporary, temporary.open("w+b") as stream:
        stream.write(b" " * _HEADER)
        count, shape = 0, (1, 0, 0)
        for row in rows:
            if row.shape[0] > shape[0]:
                _widen(stream, row.shape[1] * row.shape[2], count)
            if row.shape[0] >= shape[0]:
                shape = row.shape
            stream.write(np.broadcast_to(row, shape).tobytes())
            count += 1
        stream.seek(0)
        stream.write(_header((count, *shape)))


def _widen(stream: BinaryIO, area: int, count: int) -> None:
    """Repeat the one channel of the ``count`` images written so far, last image first."""
    for item in reversed(range(count)):
        stream.seek(_HEADER + item * area)
        grey = stream.read(area)
        stream.seek(_HEADER + item * area * 3)
        stream.write(grey * 3)
    stream.seek(_HEADER + count * area * 3)


def _header(shape: tuple[int, ...]) -> bytes:
    magic = b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little")
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    return magic + text.encode().ljust(_HEADER - 11) + b"\n"


def read_images(path: Path) -> NDArray[np.uint8]:
    """Map a file of images into memory, read-only: (N, C, H, W) uint8."""
    images: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    return images


def check_of(path: Path) -> str:
    """Digest a file's length and up to 64 MiB of it, spread evenly, in constant time.

    Small files are digested whole. A file that is cut off, or has holes that a crash left, is
    told from a whole one; a single flipped bit in a big one may not be.

    Raises:
        OSError: the file can't be read.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    last = (size - 1) // _BLOCK
    starts = (
        range(0, size, _BLOCK)
        if size <= _BLOCKS * _BLOCK
        else np.linspace(0, last, _BLOCKS).astype(int) * _BLOCK
    )
    with path.open("rb") as stream:
        for start in starts:
            stream.seek(int(start))
            digest.update(stream.read(_BLOCK))
    return digest.hexdigest()
