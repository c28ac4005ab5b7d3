"""How many bits a channel has in the file, which Pillow's mode alone does not tell."""

import struct
from typing import Any

from PIL import Image

WIDE_MODES = {"I": 32, "F": 32, "I;16": 16, "I;16L": 16, "I;16B": 16, "I;16N": 16, "I;12": 12}
_BITS_PER_SAMPLE = 258  # TIFF tag


def bits_per_channel(image: Image.Image) -> int:
    """Read the bits per channel from the file's header; call it before the image is loaded.

    Pillow opens a 16-bit RGB file as plain ``RGB`` and keeps the high byte without a word, so
    the header is looked at: PNG, TIFF, PPM, SGI (the raw mode of the decoder), JPEG 2000, AVIF.

    Args:
        image: an image just opened, not loaded.

    Returns:
        8 for ordinary images, else 10 to 32; 1-bit images count as 8.
    """
    wide = WIDE_MODES.get(image.mode, 8)
    container = {"PNG": _from_tile, "TIFF": _from_tiff, "PPM": _from_tile, "SGI": _from_tile}
    container |= {"JPEG2000": _from_jpeg2000, "AVIF": _from_avif}
    read = container.get(image.format or "")
    found = read(image) if read is not None else 8
    # 16 bits in a 32-bit mode is a 16-bit file: older Pillow opens grey PNG and PGM as "I".
    return found if found > 8 else wide


def _from_tile(image: Image.Image) -> int:
    tiles: list[Any] = list(getattr(image, "tile", []))
    text = " ".join(str(tile[3]) for tile in tiles)
    if ";16" in text or ";12" in text:
        return 16 if ";16" in text else 12
    # Pillow's PPM decoder is told the largest value, and brings it down to 8 bits by itself.
    deep = any(tile[0] == "ppm" and tile[3][1] > 255 for tile in tiles)
    return 16 if deep else 8


def _from_tiff(image: Image.Image) -> int:
    tags: Any = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (8,))
    return max(int(value) for value in (bits if isinstance(bits, tuple) else (bits,)))


def _from_jpeg2000(image: Image.Image) -> int:
    head = _head(image)
    marker = head.find(b"\xff\x4f\xff\x51")  # start of codestream, then the SIZ segment
    at = marker + 42  # Ssiz of the first component: its bits less one, the top bit is the sign
    return (head[at] & 0x7F) + 1 if marker >= 0 and at < len(head) else 8


def _from_avif(image: Image.Image) -> int:
    head = _head(image)
    at = head.find(b"pixi")  # pixel information: version and flags, number of channels, bits
    if at < 0 or at + 9 >= len(head):
        return 8
    channels = struct.unpack_from("B", head, at + 8)[0]
    return max(head[at + 9 : at + 9 + channels], default=8)


def _head(image: Image.Image) -> bytes:
    stream: Any = getattr(image, "fp", None)
    if stream is None:
        return b""
    place = stream.tell()
    stream.seek(0)
    head: bytes = stream.read(4096)
    stream.seek(place)
    return head
