from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from transferlab.datasets.table import Table
from transferlab.errors import UserError

ROWS = {
    "path": ["a.png", "b.png", "deep/c.png", "d.png"],
    "label": ["dog", "cat", "dog", "cat"],
    "split": ["train", "train", "val", "test"],
    "patient": ["p1", "p1", "p2", None],
    "age": [3, 4, 5, 6],
}


@pytest.fixture
def images(tmp_path: Path, make_image: Any) -> Path:
    for name in ROWS["path"]:
        make_image(tmp_path / str(name))
    return tmp_path


def write(path: Path, /, **changes: Any) -> Path:
    frame = pd.DataFrame(ROWS | changes)
    frame = frame.drop(columns=[name for name, cells in changes.items() if cells is None])
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
def test_every_column_finds_its_place(images: Path, ending: str) -> None:
    dataset = Table(write(images / f"t{ending}"))
    index = dataset.index()
    assert index.ids == tuple(str(name) for name in ROWS["path"])
    assert index.classes == ("cat", "dog")
    assert index.labels.tolist() == [1, 0, 1, 0]
    assert index.splits == ("train", "train", "validation", "test")
    assert index.metadata == {"patient": ("p1", "p1", "p2", ""), "age": ("3", "4", "5", "6")}
    assert np.asarray(dataset.image(2)).shape == (8, 10, 3)


def test_labels_stay_text(images: Path) -> None:
    path = write(images / "t.csv", label=["007", "7", "NA", "1e3"])
    assert Table(path).index().classes == ("007", "1e3", "7", "NA")


def test_splits_are_optional_and_may_be_ignored(images: Path) -> None:
    assert Table(write(images / "t.csv", split=None)).index().splits is None
    ignored = Table(write(images / "t.csv"), split_column=None).index()
    assert ignored.splits is None
    assert "split" in ignored.metadata


def test_columns_and_root_may_be_named(images: Path, tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS).rename(columns={"path": "file", "label": "kind", "split": "set"})
    (tmp_path / "tables").mkdir()
    frame.to_csv(tmp_path / "tables" / "t.csv", index=False)
    path = tmp_path / "tables" / "t.csv"
    index = Table(path, images, "file", "kind", "set").index()
    assert index.splits is not None
    assert len(index) == 4


def test_stamp_follows_cells_and_files(images: Path) -> None:
    first = Table(write(images / "t.csv")).index().stamp
    assert Table(write(images / "u.csv")).index().stamp == first
    (images / "a.png").touch()
    second = Table(images / "t.csv").index().stamp
    third = Table(write(images / "t.csv", label=["dog", "cat", "cat", "cat"])).index().stamp
    assert len({first, second, third}) == 3


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        (
            {},
            {"path_column": "pth"},
            r"no column 'pth' \(`target.dataset.path_column`\); nearest: path",
        ),
        ({}, {"label_column": "labels"}, "nearest: label"),
        ({}, {"split_column": "splits"}, r"target.dataset.split_column`\); nearest: split"),
        ({"label": ["a", "", "b", ""]}, {}, "2 rows have no label, the first is row 2"),
        ({"path": ["a.png", None, "d.png", "b.png"]}, {}, "1 rows have no path"),
        ({"label": ["a"] * 4}, {}, r"only one class \(a\)"),
        ({"split": ["tain", "train", "val", "test"]}, {}, "split 'tain' is unknown; nearest: trai"),
        ({"split": ["", "train", "val", "test"]}, {}, "1 rows have no split"),
        ({"path": ["a.png", "a.png", "b.png", "d.png"]}, {}, "lists 1 images twice, such as a.png"),
        ({"path": ["x.png", "a.png", "y.png", "d.png"]}, {}, "2 of 4 images .* such as x.png"),
    ],
)
def test_wrong_tables_are_explained(
    images: Path, changes: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        Table(write(images / "t.csv", **changes), **options).index()


def test_missing_and_unreadable_tables(images: Path) -> None:
    write(images / "table.csv")
    with pytest.raises(UserError, match=r"there is no tabel.csv in .*nearest: table.csv"):
        Table(images / "tabel.csv").index()
    with pytest.raises(UserError, match="where a file is needed"):
        Table(images).index()
    with pytest.raises(UserError, match=r"root=.*there is no gone"):
        Table(images / "table.csv", root=images / "gone").index()
    (images / "t.xlsx").write_bytes(b"x")
    with pytest.raises(UserError, match=r"\.csv, \.tsv and \.parquet"):
        Table(images / "t.xlsx").index()
    for name in ("bad.parquet", "empty.csv"):
        (images / name).write_bytes(b"" if name == "empty.csv" else b"no parquet")
        with pytest.raises(UserError, match=f"{name} can't be read as a table"):
            Table(images / name).index()
