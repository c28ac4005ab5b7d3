from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from transferlab.datasets.base import Index
from transferlab.datasets.grouping import resolve_groups
from transferlab.datasets.name_patterns import prefix_keys
from transferlab.errors import UserError

MakeIndex = Callable[..., Index]


def folder(pattern: Callable[[int], str], count: int = 40, per_class: bool = True) -> Any:
    """Name images of two classes as in a folder; numbers restart in each class."""
    labels = np.repeat([0, 1], count // 2)
    numbers = np.tile(np.arange(count // 2), 2) if per_class else np.arange(count)
    ids = [f"c{label}/{pattern(number)}" for label, number in zip(labels, numbers, strict=True)]
    return labels, ids


GROUPED: dict[str, Callable[[int], str]] = {
    "p012_1.jpg": lambda n: f"p{n // 4:03d}_{n % 4 + 1}.jpg",
    "scan7-slice03.png": lambda n: f"scan{n // 5}-slice{n % 5:02d}.png",
    "patient_12_left.png": lambda n: f"patient_{n // 2}_{'left' if n % 2 else 'right'}.png",
    "00000013_002.png": lambda n: f"{n // 3:08d}_{n % 3:03d}.png",
    "P1.view2.tif": lambda n: f"P{n // 2}.view{n % 2}.tif",
    "study1_p012_3.jpg": lambda n: f"study1_p{n // 4:03d}_{n % 4}.jpg",
    "obj 3 (2).jpg": lambda n: f"obj {n // 4} ({n % 4}).jpg",
}


@pytest.mark.parametrize("name", GROUPED)
def test_names_that_look_grouped_must_be_answered(make_index: MakeIndex, name: str) -> None:
    labels, ids = folder(GROUPED[name], per_class=False)
    index = make_index(labels, ids)
    with pytest.raises(UserError, match=r"`target.group_by=prefix`.*`target.group_by=none`"):
        resolve_groups(index, None)
    groups = resolve_groups(index, "prefix")
    assert groups is not None
    assert groups.dtype == np.int64
    assert 8 <= len(np.unique(groups)) <= 20
    assert groups.min() == 0
    assert resolve_groups(index, "none") is None


def test_the_question_shows_examples_and_the_number_of_groups(make_index: MakeIndex) -> None:
    labels, ids = folder(GROUPED["p012_1.jpg"], per_class=False)
    said = r"c0/p000_1.jpg, c0/p000_2.jpg, c0/p000_3.jpg share 'p000', and 40 images make 10"
    with pytest.raises(UserError, match=said):
        resolve_groups(make_index(labels, ids), None)


def test_one_patient_in_two_classes_is_one_group(make_index: MakeIndex) -> None:
    labels, ids = folder(GROUPED["p012_1.jpg"])
    groups = resolve_groups(make_index(labels, ids), "prefix")
    assert groups is not None
    assert len(np.unique(groups)) == 5


PLAIN: dict[str, Callable[[int], str]] = {
    "pic_001.jpg": lambda n: f"pic_{n:03d}.jpg",
    "IMG_0001.jpg": lambda n: f"IMG_{n:04d}.jpg",
    "0001.png": lambda n: f"{n:04d}.png",
    "img12.jpg": lambda n: f"img{n}.jpg",
    "image (12).jpg": lambda n: f"image ({n}).jpg",
    "IMG_20240131_120501.jpg": lambda n: f"IMG_2024013{n % 2}_1205{n:02d}.jpg",
    "2024-01-31 12.05.01.jpg": lambda n: f"2024-01-3{n % 2} 12.05.{n:02d}.jpg",
    "Screenshot 2024-01-31 at 12.05.01.png": lambda n: (
        f"Screenshot 2024-01-3{n % 2} at 12.05.{n:02d}.png"
    ),
    "ISIC_0012345_small.jpg": lambda n: f"ISIC_{n:07d}_small.jpg",
    "3461016494_56cec9c984.jpg": lambda n: f"{3461016494 + 7 * n}_{n * 7919:x}a.jpg",
    "photo_32x32_0001.jpg": lambda n: f"photo_32x32_{n:04d}.jpg",
    "uuid": lambda n: f"{n * 7919 + 10**7:08x}-e29b-41d4-a716-44665544{n:04x}.jpg",
}


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("name", PLAIN)
def test_plain_names_need_no_answer(make_index: MakeIndex, name: str, restart: bool) -> None:
    labels, ids = folder(PLAIN[name], per_class=restart)
    assert resolve_groups(make_index(labels, ids), None) is None


def test_class_codes_are_no_groups(make_index: MakeIndex) -> None:
    imagenet = [f"c{n // 20}/n0210340{n // 20}_{n}.JPEG" for n in range(40)]
    assert resolve_groups(make_index(np.repeat([0, 1], 20), imagenet), None) is None
    codes = ["056", "n02103406", "n02106662", "253"]  # as PACS mixes Caltech and ImageNet
    pacs = [f"c{n // 60}/{codes[n // 30]}_{n:04d}.jpg" for n in range(120)]
    assert resolve_groups(make_index(np.repeat([0, 1], 60), pacs), None) is None


def test_numbered_sub_folders_must_be_answered(make_index: MakeIndex) -> None:
    ids = [f"train/c{n // 20}/video{n // 5}/{n % 5}.png" for n in range(40)]
    index = make_index(np.repeat([0, 1], 20), ids)
    with pytest.raises(UserError, match=r"`target.group_by=folder`"):
        resolve_groups(index, None)
    groups = resolve_groups(index, "folder")
    assert groups is not None
    assert (
        groups.tolist()
        == np.argsort(np.argsort([f"video{n}" for n in range(8)])).repeat(5).tolist()
        or len(np.unique(groups)) == 8
    )


def test_a_column_called_patient_must_be_answered(make_index: MakeIndex) -> None:
    metadata = {"age": ("1", "1", "2", "3"), "patient_id": ("a", "a", "b", "b")}
    index = make_index([0, 0, 1, 1], metadata=metadata)
    with pytest.raises(UserError, match=r"'patient_id'.*`target.group_by=patient_id`"):
        resolve_groups(index, None)
    groups = resolve_groups(index, "patient_id")
    assert groups is not None
    assert groups.tolist() == [0, 0, 1, 1]
    assert resolve_groups(index, "none") is None


def test_a_unique_column_is_no_group(make_index: MakeIndex) -> None:
    index = make_index([0, 1], metadata={"case": ("a", "b")})
    assert resolve_groups(index, None) is None


def test_an_empty_cell_has_no_group(make_index: MakeIndex) -> None:
    index = make_index([0, 1, 1], metadata={"who": ("a", "", "a")})
    with pytest.raises(UserError, match=r"group_by=who`: 1 images have no value there.*0001.png"):
        resolve_groups(index, "who")


def test_an_unknown_column_names_the_nearest(make_index: MakeIndex) -> None:
    index = make_index([0, 1], metadata={"patient": ("a", "b")})
    with pytest.raises(UserError, match=r"group_by=pateint` is no column.*nearest: patient"):
        resolve_groups(index, "pateint")
    with pytest.raises(UserError, match="nearest: prefix"):
        resolve_groups(index, "prefx")


def test_a_pattern_names_the_group(make_index: MakeIndex) -> None:
    index = make_index([0, 0, 1], ids=["a/x7y1.png", "a/x7y2.png", "b/x8y1.png"])
    groups = resolve_groups(index, r"regex:x(\d+)y")
    assert groups is not None
    assert groups.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("(", "is no pattern"), ("x", "has 0 groups"), ("(a)(b)", "has 2"), ("(q)", "doesn't match")],
)
def test_a_wrong_pattern_is_explained(make_index: MakeIndex, pattern: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        resolve_groups(make_index([0, 1]), f"regex:{pattern}")


def test_a_rule_that_groups_nothing_is_refused(make_index: MakeIndex) -> None:
    with pytest.raises(UserError, match="finds no two images"):
        resolve_groups(make_index([0, 1, 1]), "prefix")


def test_names_without_an_identifier_are_groups_of_their_own() -> None:
    assert prefix_keys(["a/p1_1.png", "a/p1_2.png", "a/x.png", "a/p2_1.png", "a/p2_2.png"]) == [
        *("p1", "p1", "a/x.png", "p2", "p2"),
    ]
