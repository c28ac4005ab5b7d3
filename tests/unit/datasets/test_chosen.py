import numpy as np
import pytest
from PIL import Image

from transferlab.datasets.base import Index
from transferlab.datasets.chosen import Chosen
from transferlab.datasets.digits import Digits
from transferlab.errors import UserError


class Tiny:
    def index(self) -> Index:
        labels = np.array([0, 1, 2] * 8)
        return Index(
            ids=tuple(f"item-{n}" for n in range(24)),
            labels=labels,
            classes=("a", "b", "c"),
            stamp="tiny",
            splits=("train",) * 12 + ("test",) * 12,
            metadata={"site": tuple(f"site-{n % 5}" for n in range(24))},
        )

    def image(self, position: int) -> Image.Image:
        return Image.new("L", (1, 1), position)


def test_halves_part_every_class_of_every_split() -> None:
    first, second = (Chosen(Tiny(), half=half).index() for half in ("first", "second"))
    assert not {*first.ids} & {*second.ids}
    assert sorted([*first.ids, *second.ids]) == sorted(Tiny().index().ids)
    for half in (first, second):
        assert half.splits is not None
        places = list(zip(half.splits, half.labels, strict=True))
        assert all(places.count((split, k)) == 2 for split in ("train", "test") for k in range(3))


def test_classes_are_numbered_anew_and_images_follow() -> None:
    chosen = Chosen(Tiny(), only=["c", "a"])
    index = chosen.index()
    assert index.classes == ("a", "c")
    for position, name in enumerate(index.ids):
        number = int(name.removeprefix("item-"))
        assert index.classes[index.labels[position]] == "abc"[number % 3]
        assert index.metadata["site"][position] == f"site-{number % 5}"
        assert chosen.image(position).getpixel((0, 0)) == number


def test_a_part_has_a_stamp_of_its_own() -> None:
    stamps = {
        Chosen(Tiny(), only, half).index().stamp
        for only, half in ((None, "first"), (None, "second"), (["a", "b"], None), (["a"], "first"))
    }
    assert len(stamps | {Tiny().index().stamp}) == 5
    assert Chosen(Tiny(), ["b", "a"]).index().stamp == Chosen(Tiny(), ["a", "b"]).index().stamp


def test_an_unknown_class_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no class '10' \(nearest: '?1"):
        Chosen(Digits(), only=["5", "10"]).index()
