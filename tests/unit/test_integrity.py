"""Test images that a model learned from: counted, refused, cached."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from transferlab import integrity, split_data
from transferlab.errors import UserError
from transferlab.integrity import near_duplicates
from transferlab.planning import Plan

MakePlan = Callable[..., Plan]
pytestmark = pytest.mark.usefixtures("fresh_cache")


def picture(seed: int) -> Image.Image:
    """A smooth image of random blobs, unlike that of any other seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC)


def folder(root: Path, first: int = 0, each: int = 12) -> Path:
    """Two classes, with train, validation and test folders: 8, 2 and 2 images a class."""
    splits = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    for label, name in enumerate(("ant", "bee")):
        for number in range(each):
            path = root / splits[number % 12] / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(first + 1000 * label + number).save(path)
    return root


def data(make_plan: MakePlan, root: Path, mode: str = "ignore", *more: str) -> Plan:
    split_data._open.cache_clear()  # a process reads a folder once
    return make_plan(
        "target=image_folder", f"target.root={root}", "backbone.image_size=32",
        f"target.near_duplicates={mode}", "target.shots=2", "target.group_by=none", *more,
    )  # fmt: skip


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return folder(tmp_path / "clean")


def test_data_without_copies_pass(make_plan: MakePlan, clean: Path) -> None:
    found: Any = data(make_plan, clean, "refuse").notes["near_duplicates"]
    assert found["train_test"] == {"exact": 0, "near": 0, "of": 4, "examples": []}
    assert found["source_test"] is None, "no source data at hand"
    assert (found["mode"], found["limit"], found["also_test"]) == ("refuse", 0.001, {})


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_recompressed_copy_is_refused_with_names_and_remedy(
    make_plan: MakePlan, clean: Path, split: str
) -> None:
    picture(1010).save(clean / split / "bee" / "again.jpg", quality=85)  # test/bee/10.png
    with pytest.raises(UserError) as caught:
        data(make_plan, clean, "refuse")
    said = str(caught.value)
    assert "1 of 4 images of the test split" in said
    assert "0 exact, 1 nearly" in said
    assert "test/bee/10.png" in said
    assert f"{split}/bee/again.jpg" in said
    assert "target.near_duplicates=warn" in said


def test_the_user_may_know_better(
    make_plan: MakePlan, clean: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture(10).save(clean / "train" / "ant" / "again.jpg", quality=85)
    integrity._warn.cache_clear()
    warned = data(make_plan, clean, "warn")
    assert warned.notes["near_duplicates"]["train_test"]["near"] == 1
    assert caplog.text.count("1 of 4 images of the test split") == 1
    data(make_plan, clean, "warn")
    assert caplog.text.count("1 of 4 images") == 1, "said once a process"
    ignored = data(make_plan, clean, "ignore")
    assert ignored.notes["near_duplicates"] is None
    assert warned.run_id == ignored.run_id, "a check changes no result"


def test_one_in_a_thousand_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    count = {"exact": 1, "near": 1, "of": 2000, "examples": [["a", "b"]]}
    integrity._judge("train", "test", count, "refuse")
    with pytest.raises(UserError, match="2 of 1999"):
        integrity._judge("train", "test", count | {"of": 1999}, "refuse")


def test_the_source_may_not_hold_the_targets_test_images(
    make_plan: MakePlan, clean: Path, tmp_path: Path
) -> None:
    source = folder(tmp_path / "source", first=5000)
    line = ("source=image_folder", f"source.root={source}", "source.pretrain.budget.steps=2")
    found: Any = data(make_plan, clean, "refuse", *line).notes["near_duplicates"]
    assert found["source_test"] == {"exact": 0, "near": 0, "of": 4, "examples": []}
    shutil.copy(clean / "test" / "ant" / "10.png", source / "train" / "bee" / "x.png")
    with pytest.raises(UserError, match=r"1 of 4 .* also in the source \(1 exact, 0 nearly\)"):
        data(make_plan, clean, "refuse", *line)
    shutil.move(source / "train" / "bee" / "x.png", source / "test" / "bee" / "x.png")
    kept: Any = data(make_plan, clean, "refuse", *line).notes["near_duplicates"]
    assert kept["source_test"]["exact"] == 0, "the source run never trains on its test split"


def test_validation_images_that_the_source_knows_are_counted_and_told(
    make_plan: MakePlan, clean: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = folder(tmp_path / "source", first=5000)
    line = ("source=image_folder", f"source.root={source}", "source.pretrain.budget.steps=2")
    plan = data(make_plan, clean, "refuse", *line)
    found: Any = plan.notes["near_duplicates"]
    assert found["source_validation"]["exact"] == 0
    assert "validation images" not in caplog.text
    known = plan.data.store.ids[plan.data.splits.validation[0]]
    shutil.copy(clean / known, source / "train" / "bee" / "x.png")
    found = data(make_plan, clean, "refuse", *line).notes["near_duplicates"]
    assert found["source_validation"]["exact"] == 1
    assert found["source_validation"]["examples"][0][0] == known
    assert "validation images are also in the source, such as " + known in caplog.text


def test_noise_in_the_place_of_the_images_is_no_copy(
    make_plan: MakePlan, clean: Path, tmp_path: Path
) -> None:
    source = folder(tmp_path / "source", first=5000)
    shutil.copy(clean / "test" / "ant" / "10.png", source / "train" / "bee" / "x.png")
    line = ("source=image_folder", f"source.root={source}", "source.pretrain.budget.steps=2")
    found: Any = data(make_plan, clean, "refuse", *line, "source.corruption=noise").notes
    assert found["near_duplicates"]["source_test"]["exact"] == 0


def test_counts_are_made_once(
    make_plan: MakePlan, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = data(make_plan, clean)
    first = near_duplicates(plan.data, None, {}, "refuse")

    def again(*arguments: object) -> None:
        raise AssertionError("compared twice")

    monkeypatch.setattr(integrity, "_compare", again)
    assert near_duplicates(plan.data, None, {}, "refuse") == first


def test_digits_and_glyphs_are_not_refused(make_plan: MakePlan) -> None:
    line = ("source.dataset.per_class=20", "source.pretrain.budget.steps=2")
    found: Any = make_plan("source=glyphs", *line).notes["near_duplicates"]
    for pair in ("train_test", "source_test"):
        assert (found[pair]["exact"], found[pair]["near"]) == (0, 0)
