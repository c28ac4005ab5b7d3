"""Open an image file so that what is wrong with it carries its name."""

import io
import struct
import zlib
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from transferlab.errors import UserError

DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError),
    *(struct.error, zlib.error, OverflowError, RuntimeError, AssertionError),
    Image.DecompressionBombError,
)
"""What Pillow raises, while opening or while decoding, for a file that it can't read."""


class BrokenImageError(UserError):
    """An image can't be read; ``target.images.broken`` says whether to refuse or to skip it."""


def broken(name: str, reason: object) -> BrokenImageError:
    """Make the error for an image that can't be read.

    Args:
        name: the file.
        reason: what the decoder said.
    """
    return BrokenImageError(
        f"image {name} can't be read ({reason}). Mend or remove the file, or leave such images "
        "out with `target.images.broken=skip`."
    )


def open_image(source: Path | bytes, name: str | None = None) -> Image.Image:
    """Open an image without decoding it yet; its ``filename`` is the name used in messages.

    The bytes are read at once: no file stays open when an image is refused, and decoding may
    happen in any thread.

    Args:
        source: a file, or its content.
        name: what messages call it; the path by default.

    Raises:
        BrokenImageError: there is no such file, or it holds no image that Pillow knows.
    """
    called = name or ("of unknown name" if isinstance(source, bytes) else str(source))
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
        image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:
        raise broken(called, "it is no image, or cut off at its start") from error
    except DAMAGE as error:
        raise broken(called, error) from error
    image.filename = called
    return image
