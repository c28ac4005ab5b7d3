import time

import numpy as np
import pytest

from transferlab.datasets.digits import Digits
from transferlab.datasets.glyphs import Glyphs
from transferlab.errors import UserError


def test_letters_are_disjoint_from_digits() -> None:
    assert not set(Glyphs().index().classes) & set(Digits().index().classes)


def test_an_image_depends_on_seed_letter_and_item_only() -> None:
    few, many = Glyphs(per_class=2, letters="AB"), Glyphs(per_class=5, letters="BA")
    assert np.array_equal(few.image(1), many.image(6))  # A, item 1
    assert not np.array_equal(few.image(1), Glyphs(per_class=2, letters="AB", seed=1).image(1))


def test_images_of_a_class_differ_and_hold_ink() -> None:
    glyphs = Glyphs(per_class=20, letters="IW")
    pixels = np.stack([np.asarray(glyphs.image(item)) for item in range(40)])
    assert len(np.unique(pixels.reshape(40, -1), axis=0)) == 40
    assert (pixels.max(axis=(1, 2)) > 150).all()
    assert pixels[:, [0, -1]].max() < 255  # nothing is cut hard at the upper and lower edge
    assert pixels.mean() < 100


def test_size_changes_the_image_and_the_stamp() -> None:
    assert Glyphs(size=64).image(0).size == (64, 64)
    stamps = {Glyphs().index().stamp, Glyphs(size=64).index().stamp, Glyphs(seed=1).index().stamp}
    assert len(stamps) == 3
    assert Glyphs().index().stamp == Glyphs().index().stamp


def test_only_text_fonts_are_used() -> None:
    names = {path.stem for path in Glyphs()._fonts}
    assert {"DejaVuSans", "DejaVuSerif-BoldItalic", "STIXGeneralBolIta", "cmr10"} <= names
    assert not {"cmsy10", "cmex10", "cmmi10", "LastResortHE-Regular", "DejaVuSansDisplay"} & names
    assert not [name for name in names if "NonUni" in name or "Siz" in name]


def test_drawing_is_quick() -> None:
    glyphs, begun = Glyphs(), time.perf_counter()
    for item in range(260):
        glyphs.image(item * 10)
    assert time.perf_counter() - begun < 3  # a tenth of the default; 0.1 s measured


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"per_class": 0}, "per_class"),
        ({"size": 2}, "size"),
        ({"letters": "AB1"}, "letters"),
        ({"letters": "AAB"}, "repeated"),
        ({"letters": "A"}, "one class"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Glyphs(**options)  # type: ignore[arg-type]
