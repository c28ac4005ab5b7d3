import logging
from pathlib import Path
from typing import Any

import pytest

from transferlab.datasets.image_folder import ImageFolder
from transferlab.errors import UserError


def test_classes_are_sorted_folder_names(tmp_path: Path, make_folder: Any) -> None:
    index = ImageFolder(make_folder(tmp_path, {"dog": 2, "cat": 3})).index()
    assert index.classes == ("cat", "dog")
    assert index.labels.tolist() == [0, 0, 0, 1, 1]
    assert index.ids[0] == "cat/img_000.png"
    assert index.splits is None


def test_numbered_classes_sort_by_value(tmp_path: Path, make_folder: Any) -> None:
    assert ImageFolder(make_folder(tmp_path, {"10": 1, "9": 1})).index().classes == ("9", "10")


@pytest.mark.parametrize("name", ["val", "valid", "validation", "VAL"])
def test_split_folders_are_official_splits(tmp_path: Path, make_folder: Any, name: str) -> None:
    for split in ("train", name, "test"):
        make_folder(tmp_path / split, {"cat": 2, "dog": 1})
    index = ImageFolder(tmp_path).index()
    assert index.classes == ("cat", "dog")
    assert index.splits is not None
    found = dict(zip(index.ids, index.splits, strict=True))
    assert found[f"{name}/cat/img_001.png"] == "validation"
    assert found["train/dog/img_000.png"] == "train"
    assert sorted(set(index.splits)) == ["test", "train", "validation"]


def test_train_and_test_alone_are_splits_too(tmp_path: Path, make_folder: Any) -> None:
    for split in ("train", "test"):
        make_folder(tmp_path / split, {"cat": 1, "dog": 1})
    assert set(ImageFolder(tmp_path).index().splits or ()) == {"train", "test"}


def test_a_class_may_be_called_test(tmp_path: Path, make_folder: Any) -> None:
    index = ImageFolder(make_folder(tmp_path, {"test": 1, "control": 1})).index()
    assert index.classes == ("control", "test")
    assert index.splits is None


def test_images_may_lie_deeper_and_files_may_be_hidden(
    tmp_path: Path, make_folder: Any, make_image: Any
) -> None:
    make_folder(tmp_path, {"cat": 1, "dog": 1})
    make_image(tmp_path / "cat" / "deep" / "er" / "x.PNG")
    make_image(tmp_path / "cat" / ".hidden.png")
    make_image(tmp_path / ".git" / "x.png")
    make_image(tmp_path / "dog" / ".cache" / "x.png")
    index = ImageFolder(tmp_path).index()
    assert index.ids == ("cat/deep/er/x.PNG", "cat/img_000.png", "dog/img_000.png")


def test_other_files_are_counted_aloud(
    tmp_path: Path, make_folder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    make_folder(tmp_path, {"cat": 1, "dog": 1})
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / "dog" / "notes.txt").write_text("x")
    (tmp_path / "dog" / "README").write_text("x")
    dataset = ImageFolder(tmp_path)
    with caplog.at_level(logging.WARNING):
        dataset.index()
    assert dataset.ignored == {".txt": 2, "(no ending)": 1}
    assert "2 .txt, 1 (no ending)" in caplog.text


def test_linked_folders_are_followed_once(tmp_path: Path, make_folder: Any) -> None:
    make_folder(tmp_path / "store", {"cat": 2})
    root = make_folder(tmp_path / "data", {"dog": 1})
    (root / "cat").symlink_to(tmp_path / "store" / "cat")
    (root / "cat" / "loop").symlink_to(tmp_path / "store" / "cat")
    assert len(ImageFolder(root).index()) == 3


def test_stamp_follows_names_sizes_and_times(tmp_path: Path, make_folder: Any) -> None:
    root = make_folder(tmp_path, {"cat": 2, "dog": 1})
    first = ImageFolder(root).index().stamp
    assert ImageFolder(root).index().stamp == first
    (root / "cat" / "img_000.png").touch()
    second = ImageFolder(root).index().stamp
    (root / "cat" / "img_000.png").rename(root / "cat" / "new.png")
    assert len({first, second, ImageFolder(root).index().stamp}) == 3


def test_a_missing_root_names_its_nearest_sibling(tmp_path: Path, make_folder: Any) -> None:
    make_folder(tmp_path / "photos", {"cat": 1})
    said = r"target.root=.*photo`: there is no photo in .*; nearest: photos"
    with pytest.raises(UserError, match=said):
        ImageFolder(tmp_path / "photo").index()
    with pytest.raises(UserError, match="there is no nowhere in"):
        ImageFolder(tmp_path / "nowhere" / "deep" / "er").index()


def test_a_file_is_no_root(tmp_path: Path, make_image: Any) -> None:
    with pytest.raises(UserError, match="is a file, where a folder is needed"):
        ImageFolder(make_image(tmp_path / "x.png")).index()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is empty"):
        ImageFolder(tmp_path).index()


def test_loose_images_are_explained(tmp_path: Path, make_image: Any) -> None:
    make_image(tmp_path / "x.png")
    with pytest.raises(UserError, match="holds 1 images and no class folders"):
        ImageFolder(tmp_path).index()


def test_an_empty_class_is_named(tmp_path: Path, make_folder: Any) -> None:
    make_folder(tmp_path, {"cat": 1, "dog": 1})
    (tmp_path / "fish").mkdir()
    (tmp_path / "fish" / "x.txt").write_text("x")
    with pytest.raises(UserError, match=r"fish holds no image.*Fill it or remove it"):
        ImageFolder(tmp_path).index()


def test_one_class_is_refused(tmp_path: Path, make_folder: Any) -> None:
    with pytest.raises(UserError, match=r"only one class \(cat\)"):
        ImageFolder(make_folder(tmp_path, {"cat": 3})).index()


def test_a_folder_too_high_is_hinted_at(tmp_path: Path, make_folder: Any) -> None:
    make_folder(tmp_path / "pets", {"cat": 1, "dog": 1})
    with pytest.raises(UserError, match=r"did you mean `target.root=.*pets`"):
        ImageFolder(tmp_path).index()


def test_splits_beside_other_folders_are_refused(tmp_path: Path, make_folder: Any) -> None:
    for name in ("train", "test", "extra"):
        make_folder(tmp_path / name, {"cat": 1, "dog": 1})
    with pytest.raises(UserError, match="holds the splits test, train and also extra"):
        ImageFolder(tmp_path).index()


def test_image_opens_the_listed_file(tmp_path: Path, make_folder: Any) -> None:
    dataset = ImageFolder(str(make_folder(tmp_path, {"cat": 1, "dog": 1})))
    assert dataset.image(1).size == (10, 8)
    (tmp_path / "dog" / "img_000.png").unlink()
    with pytest.raises(UserError, match=r"dog/img_000.png can't be read"):
        dataset.image(1)


def test_split_folders_without_classes_are_no_classes(
    tmp_path: Path, make_folder: Any, make_image: Any
) -> None:
    make_folder(tmp_path / "train", {"cat": 1, "dog": 1})
    make_image(tmp_path / "test" / "x.png")
    with pytest.raises(UserError, match=r"test is called after a split and holds no class folders"):
        ImageFolder(tmp_path).index()
