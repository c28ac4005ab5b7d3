from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from transferlab.datasets.split_file import Splits, digest, parts_of, read_splits, write_splits
from transferlab.errors import UserError


@pytest.fixture
def splits() -> Splits:
    arrays = {"train": np.arange(5), "validation": np.arange(5, 7), "test": np.arange(7, 9)}
    return Splits(**arrays, sha256=digest(arrays, np.arange(9)))


def test_what_is_written_is_read(tmp_path: Path, splits: Splits) -> None:
    write_splits(tmp_path / "deep" / "splits.npz", splits)
    read = read_splits(tmp_path / "deep" / "splits.npz")
    assert read.sha256 == splits.sha256
    for name, part in parts_of(splits).items():
        assert np.array_equal(parts_of(read)[name], part)
        assert parts_of(read)[name].dtype == np.int64


def test_moving_an_image_changes_the_hash(splits: Splits) -> None:
    parts = parts_of(splits)
    moved = parts | {"train": parts["train"][:-1], "test": np.r_[parts["train"][-1], parts["test"]]}
    assert len({digest(parts, None), digest(moved, None), splits.sha256}) == 3


def test_changed_positions_are_refused(tmp_path: Path, splits: Splits) -> None:
    write_splits(tmp_path / "s.npz", replace(splits, test=np.array([7])))
    with pytest.raises(UserError, match=r"s.npz doesn't match its SHA-256.*Remove it"):
        read_splits(tmp_path / "s.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"text"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"s.npz can't be read"):
        read_splits(tmp_path / "s.npz")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path, splits: Splits) -> None:
    path = tmp_path / "s.npz"
    write_splits(path, splits)
    whole = path.read_bytes()
    for cut in (10, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"s.npz"):
            read_splits(path)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.arange(3))
    for name in ("none.npz", "other.npz"):
        with pytest.raises(UserError, match=name):
            read_splits(tmp_path / name)
