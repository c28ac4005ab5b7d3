"""Letters drawn from the fonts that matplotlib carries: a source dataset without a download."""

import math
import re
import string
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from transferlab.datasets.base import Index
from transferlab.datasets.naming import require_classes
from transferlab.datasets.seeding import generator
from transferlab.errors import UserError
from transferlab.records import sha256_file, sha256_record

TEXT_FONTS = re.compile(
    r"DejaVu(Sans|Serif|SansMono)(-\w+)?|STIXGeneral(Bol)?(Ita|Italic)?|cm(r|b|ss|ti|tt)10"
)
"""Fonts with Latin letters; the others hold symbols, sizes of brackets, or boxes."""

_CANVAS = 64  # letters are drawn at this size and reduced, which smooths their edges


class Glyphs:
    """Letters in random fonts, sizes, rotations, shears and places, white on black.

    An image is a pure function of (seed, letter, item): asking for more per class adds images
    and leaves the others as they are. The labels are letters only, so none is a digit's.

    Args:
        per_class: images a letter.
        letters: the classes, each one letter of A-Z or a-z.
        seed: draws fonts and shapes.
        size: height and width in pixels.
    """

    def __init__(
        self,
        per_class: int = 100,
        letters: str = string.ascii_uppercase,
        seed: int = 0,
        size: int = 32,
    ) -> None:
        if per_class < 1 or size < 8:
            raise UserError(
                f"glyphs needs per_class of 1 or more and size of 8 or more, got "
                f"per_class={per_class} and size={size}."
            )
        strange = sorted(set(letters) - set(string.ascii_letters))
        if strange or len(set(letters)) != len(letters):
            raise UserError(
                f"glyphs draws each of A-Z and a-z once, got letters={letters!r}. "
                "Leave out digits, signs and repeated letters."
            )
        require_classes(letters, "glyphs")
        self.per_class, self.letters, self.seed, self.size = per_class, letters, seed, size

    def index(self) -> Index:
        """List the letters, class by class; no official split."""
        drawn_by = {
            "version": 1,
            "fonts": [sha256_file(path) for path in self._fonts],
            "freetype": features.version("freetype2"),
            "options": [self.per_class, self.letters, self.seed, self.size],
        }
        return Index(
            ids=tuple(f"{x}/{item:04d}" for x in self.letters for item in range(self.per_class)),
            labels=np.repeat(np.arange(len(self.letters), dtype=np.int64), self.per_class),
            classes=tuple(self.letters),
            stamp=f"glyphs-{sha256_record(drawn_by)[:16]}",
        )

    def image(self, position: int) -> Image.Image:
        """Draw one letter, mode ``L``."""
        label, item = divmod(position, self.per_class)
        letter = self.letters[label]
        draw = generator("glyph", self.seed, ord(letter), item)
        font = self._sized(int(draw.integers(len(self._fonts))), letter, draw.uniform(34, 56))
        canvas = Image.new("L", (_CANVAS, _CANVAS))
        centre = (_CANVAS / 2, _CANVAS / 2)
        left, top, right, bottom = font.getbbox(letter)
        corner = (centre[0] - (left + right) / 2, centre[1] - (top + bottom) / 2)
        ImageDraw.Draw(canvas).text(corner, letter, fill=255, font=font)
        coefficients = _affine(draw, centre)
        bent = canvas.transform(
            canvas.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
        )
        return bent.resize((self.size, self.size), Image.Resampling.BOX)

    @cached_property
    def _fonts(self) -> tuple[Path, ...]:
        found = find_spec("matplotlib")  # located, not imported: its import takes a second
        folder = Path(str(found.origin if found else "")).parent / "mpl-data" / "fonts" / "ttf"
        fonts = [path for path in sorted(folder.glob("*.ttf")) if TEXT_FONTS.fullmatch(path.stem)]
        if not fonts:
            raise UserError(f"glyphs found no font in {folder}. Install matplotlib again.")
        return tuple(fonts)

    def _sized(self, number: int, letter: str, extent: float) -> ImageFont.FreeTypeFont:
        """Choose the size at which a letter's longer side has ``extent`` pixels: W is not cut."""
        left, top, right, bottom = self._font(number, _CANVAS).getbbox(letter)
        return self._font(number, round(_CANVAS * extent / max(right - left, bottom - top)))

    def _font(self, number: int, points: int) -> ImageFont.FreeTypeFont:
        key = (number, points)
        if key not in self._loaded:
            # The basic layout is the one that every build of Pillow has.
            self._loaded[key] = ImageFont.truetype(
                self._fonts[number], points, layout_engine=ImageFont.Layout.BASIC
            )
        return self._loaded[key]

    @cached_property
    def _loaded(self) -> dict[tuple[int, int], ImageFont.FreeTypeFont]:
        return {}


def _affine(draw: np.random.Generator, centre: tuple[float, float]) -> tuple[float, ...]:
    """Draw rotation, shear and shift; return the map from output to input pixels about centre."""
    angle = math.radians(draw.uniform(-20, 20))
    shear = draw.uniform(-0.3, 0.3)
    shift = draw.uniform(-4, 4, size=2)
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.array([[cos, sin], [-sin, cos]]) @ np.array([[1.0, shear], [0.0, 1.0]])
    offset = np.array(centre) - matrix @ (np.array(centre) + shift)
    return (*matrix[0].tolist(), float(offset[0]), *matrix[1].tolist(), float(offset[1]))
