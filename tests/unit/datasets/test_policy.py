import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from transferlab.datasets.depth import bits_per_channel
from transferlab.datasets.opening import BrokenImageError, open_image
from transferlab.datasets.policy import ImagePolicy, to_uint8
from transferlab.errors import UserError

PLAIN = ImagePolicy()
OPEN = ImagePolicy(more_than_8_bits="scale", alpha="drop", cmyk="convert")


def stored(image: Image.Image, form: str = "PNG", **options: object) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, form, **options)  # type: ignore[arg-type]
    return open_image(stream.getvalue(), "x.img")


def grey(value: int = 7, mode: str = "L") -> Image.Image:
    return Image.new(mode, (5, 4), value)


@pytest.mark.parametrize("option", ["more_than_8_bits", "alpha", "cmyk", "broken"])
def test_unknown_choice_is_refused_by_its_full_name(option: str) -> None:
    with pytest.raises(UserError, match=rf"`target.images.{option}=scal` is unknown"):
        ImagePolicy(**{option: "scal"})


@pytest.mark.parametrize(
    ("image", "shape"),
    [
        (Image.new("L", (5, 4), 7), (4, 5, 1)),
        (Image.new("RGB", (5, 4), (1, 2, 3)), (4, 5, 3)),
        (Image.new("1", (5, 4), 1), (4, 5, 1)),
        (Image.new("RGB", (5, 4), (1, 2, 3)).quantize(4), (4, 5, 3)),
        (Image.new("RGB", (5, 4), (9, 9, 9)).quantize(4), (4, 5, 1)),
        (Image.new("YCbCr", (5, 4), (90, 128, 128)), (4, 5, 3)),
    ],
    ids=["grey", "rgb", "one-bit", "palette", "grey palette", "ycbcr"],
)
def test_plain_modes_pass(image: Image.Image, shape: tuple[int, ...]) -> None:
    pixels = to_uint8(image, PLAIN, "x")
    assert pixels.shape == shape
    assert pixels.dtype == np.uint8


def test_one_bit_white_is_255() -> None:
    assert (to_uint8(stored(grey(1, "1")), PLAIN, "x") == 255).all()


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (4, 2))
    image.putpixel((0, 0), (255, 0, 0))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera lay on its side: turn clockwise
    upright = to_uint8(stored(image, exif=exif), PLAIN, "x")
    assert upright.shape == (4, 2, 3)
    assert upright[0, 1].tolist() == [255, 0, 0]


def test_16_bit_grey_is_refused_or_scaled() -> None:
    deep = Image.fromarray(np.array([[0, 257 * 100, 65535]], dtype=np.uint16))
    said = r"x.img has 16 bits a channel.*`target.images.more_than_8_bits=scale`"
    for form in ("PNG", "TIFF"):
        with pytest.raises(UserError, match=said):
            to_uint8(stored(deep, form), PLAIN, "x.img")
        assert to_uint8(stored(deep, form), OPEN, "x")[0, :, 0].tolist() == [0, 100, 255]


def test_16_bit_rgb_png_is_found_though_pillow_calls_it_rgb(
    png16: Callable[[NDArray[np.uint16]], bytes],
) -> None:
    content = png16(np.full((2, 3, 3), 257 * 40, dtype=np.uint16))
    assert open_image(content, "x").mode == "RGB"
    with pytest.raises(UserError, match="16 bits"):
        to_uint8(open_image(content, "x"), PLAIN, "x")
    assert (to_uint8(open_image(content, "x"), OPEN, "x") == 40).all()


@pytest.mark.parametrize("magic", [b"P5", b"P6"])
def test_16_bit_portable_maps_are_found(magic: bytes) -> None:
    count = 3 if magic == b"P6" else 1
    content = magic + b" 2 2 65535\n" + (257 * 40).to_bytes(2, "big") * 4 * count
    with pytest.raises(UserError, match="bits a channel"):
        to_uint8(open_image(content, "x"), PLAIN, "x")
    assert (to_uint8(open_image(content, "x"), OPEN, "x") == 40).all()


def test_8_bit_files_have_8_bits() -> None:
    rgb = Image.new("RGB", (40, 30), (1, 2, 3))
    for form in ("PNG", "JPEG", "TIFF", "PPM", "BMP", "GIF", "WEBP", "SGI", "JPEG2000"):
        assert bits_per_channel(stored(rgb, form)) == 8, form
    assert bits_per_channel(stored(grey(1, "1"), "TIFF")) == 8


def test_12_bit_jpeg_2000_is_found() -> None:
    deep = Image.fromarray(np.full((40, 40), 3000, dtype=np.uint16))
    assert bits_per_channel(stored(deep, "JPEG2000")) == 16


def test_floats_from_0_to_1_scale_and_others_are_refused() -> None:
    ramp = Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
    with pytest.raises(UserError, match="32 bits"):
        to_uint8(stored(ramp, "TIFF"), PLAIN, "x")
    assert to_uint8(stored(ramp, "TIFF"), OPEN, "x")[0, :, 0].tolist() == [0, 128, 255]
    for wrong in (700.0, -0.1, float("nan")):
        image = Image.fromarray(np.array([[0.0, wrong]], dtype=np.float32))
        with pytest.raises(UserError, match="x holds values from"):
            to_uint8(stored(image, "TIFF"), OPEN, "x")


def test_32_bit_integers_beyond_16_bits_are_refused() -> None:
    image = Image.fromarray(np.array([[0, 70000]], dtype=np.int32))
    with pytest.raises(UserError, match="70000"):
        to_uint8(stored(image, "TIFF"), OPEN, "x")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_is_refused_dropped_or_blended(mode: str) -> None:
    see_through = Image.new("RGBA", (5, 4), (10, 10, 10, 0)).convert(mode)
    with pytest.raises(UserError, match=r"alpha channel.*alpha=drop.*alpha=white"):
        to_uint8(see_through, PLAIN, "x")
    assert (to_uint8(see_through, ImagePolicy(alpha="white"), "x") == 255).all()
    dropped = to_uint8(Image.new("RGBA", (5, 4), (10, 10, 10, 128)).convert(mode), OPEN, "x")
    assert (dropped == 10).all()
    assert dropped.shape[2] == (1 if mode == "LA" else 3)


def test_transparent_colour_of_a_palette_is_refused_or_blended() -> None:
    palette = Image.new("RGB", (5, 4), (200, 0, 0)).quantize(2)
    image = stored(palette, transparency=palette.getpixel((0, 0)))
    with pytest.raises(UserError, match="transparent colour"):
        to_uint8(image, PLAIN, "x")
    assert (to_uint8(image, ImagePolicy(alpha="white"), "x") == 255).all()


def test_cmyk_is_refused_or_converted(tmp_path: Path) -> None:
    Image.new("CMYK", (5, 4), (0, 0, 0, 255)).save(tmp_path / "ink.jpg")
    with pytest.raises(UserError, match=r"ink.jpg is CMYK.*`target.images.cmyk=convert`"):
        to_uint8(open_image(tmp_path / "ink.jpg"), PLAIN, str(tmp_path / "ink.jpg"))
    assert to_uint8(open_image(tmp_path / "ink.jpg"), OPEN, "x").max() < 10


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(UserError, match="mode LAB"):
        to_uint8(Image.new("LAB", (5, 4)), OPEN, "x")


def test_broken_files_carry_their_name(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(whole)
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(BrokenImageError, match=r"cut.png can't be read.*broken=skip"):
        to_uint8(open_image(cut), PLAIN, str(cut))
    text = tmp_path / "text.png"
    text.write_text("no image")
    for path in (text, tmp_path / "missing.png"):
        with pytest.raises(BrokenImageError, match=path.name):
            open_image(path)
    with pytest.raises(BrokenImageError, match="unknown name"):
        open_image(b"")
