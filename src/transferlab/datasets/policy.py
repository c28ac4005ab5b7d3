"""What happens to images that are not plain 8-bit grey or RGB: a stated option, never silence."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from transferlab.datasets.depth import WIDE_MODES, bits_per_channel
from transferlab.datasets.opening import DAMAGE, broken
from transferlab.errors import UserError, nearest

CHOICES = {
    "more_than_8_bits": ("refuse", "scale"),
    "alpha": ("refuse", "drop", "white"),
    "cmyk": ("refuse", "convert"),
    "broken": ("refuse", "skip"),
}
_ALPHA_MODES = {"RGBA", "LA", "PA", "La", "RGBa"}
_PLAIN_MODES = {"1", "L", "P", "RGB", "RGBX", "YCbCr", "HSV"} | _ALPHA_MODES | {"CMYK"}


@dataclass(frozen=True)
class ImagePolicy:
    """How unusual images are treated.

    Attributes:
        more_than_8_bits: ``refuse``, or ``scale`` the file's whole range onto 0..255; floats
            must run from 0 to 1, 32-bit integers from 0 to 65,535.
        alpha: ``refuse``, ``drop`` the channel, or blend onto ``white``.
        cmyk: ``refuse``, or ``convert`` to RGB without a colour profile.
        broken: ``refuse`` the dataset, or ``skip`` the image and count it.
    """

    more_than_8_bits: str = "refuse"
    alpha: str = "refuse"
    cmyk: str = "refuse"
    broken: str = "refuse"

    def __post_init__(self) -> None:
        """Refuse unknown choices.

        Raises:
            UserError: an option holds a value that it doesn't know.
        """
        for option, value in asdict(self).items():
            if value not in CHOICES[option]:
                raise UserError(
                    f"`target.images.{option}={value}` is unknown; "
                    f"{nearest(value, CHOICES[option])}."
                )


def to_uint8(image: Image.Image, policy: ImagePolicy, name: str) -> NDArray[np.uint8]:
    """Decode an image, upright by its EXIF orientation, into 8 bits a channel.

    Of a file with several frames the first one counts.

    Args:
        image: an image just opened, in whatever mode its file has.
        policy: what to do with deep, transparent and CMYK images.
        name: the file, for messages.

    Returns:
        (H, W, 1) for grey and 1-bit images and grey palettes, else (H, W, 3).

    Raises:
        BrokenImageError: the file can't be decoded.
        UserError: the policy refuses the image, or nothing can be done with its mode.
    """
    try:
        bits = bits_per_channel(image)
    except DAMAGE as error:
        raise broken(name, error) from error
    if bits > 8 and policy.more_than_8_bits == "refuse":
        raise _refusal(name, f"has {bits} bits a channel", "more_than_8_bits", "scale")
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
    except DAMAGE as error:
        raise broken(name, error) from error
    if image.mode in WIDE_MODES:
        return _scaled(np.asarray(image), image.mode, bits, name)[:, :, None]
    plain = _flattened(image, policy, name)
    pixels = np.asarray(plain, dtype=np.uint8)
    return np.ascontiguousarray(pixels[:, :, None] if pixels.ndim == 2 else pixels)


def _flattened(image: Image.Image, policy: ImagePolicy, name: str) -> Image.Image:
    """Turn any 8-bit mode into ``L`` or ``RGB``."""
    if image.mode not in _PLAIN_MODES:
        raise UserError(f"image {name} has the mode {image.mode}. Convert it to RGB or grey first.")
    if image.mode == "CMYK":
        if policy.cmyk == "refuse":
            raise _refusal(name, "is CMYK", "cmyk", "convert")
        return image.convert("RGB")
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        return _without_alpha(image, policy, name)
    return _opaque(image)


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode in {"1", "L", "LA", "La"}:
        return image.convert("L")
    colour = image.convert("RGB")
    if image.mode in {"P", "PA"}:
        red, green, blue = np.asarray(colour).transpose(2, 0, 1)
        if np.array_equal(red, green) and np.array_equal(red, blue):
            return colour.getchannel("R")  # a grey palette is a grey image
    return colour


def _without_alpha(image: Image.Image, policy: ImagePolicy, name: str) -> Image.Image:
    if policy.alpha == "refuse":
        what = "has an alpha channel" if image.mode in _ALPHA_MODES else "has a transparent colour"
        raise _refusal(name, what, "alpha", "drop", "white")
    grey = image.mode in {"L", "LA", "La", "1"}
    full = image.convert("RGBA")
    if policy.alpha == "white":
        paper = Image.new("RGBA", full.size, (255, 255, 255, 255))
        full = Image.alpha_composite(paper, full)
    return full.getchannel("R") if grey else full.convert("RGB")


def _scaled(values: NDArray[np.generic], mode: str, bits: int, name: str) -> NDArray[np.uint8]:
    numbers = values.astype(np.float64)
    top = 1.0 if mode == "F" else float(2 ** min(bits, 16) - 1)
    low, high = float(numbers.min()), float(numbers.max())
    if not (low >= 0 and high <= top):  # written so that NaN fails too
        raise UserError(
            f"image {name} holds values from {low:g} to {high:g}, and only 0 to {top:g} has a "
            "known scale. Convert it to 8 bits first."
        )
    return np.rint(numbers * (255 / top)).astype(np.uint8)


def _refusal(name: str, what: str, option: str, *remedies: str) -> UserError:
    ways = " or ".join(f"`target.images.{option}={remedy}`" for remedy in remedies)
    return UserError(f"image {name} {what}. Convert it first, or set {ways}.")
