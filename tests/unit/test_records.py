import json
import math
import os
import pickle
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from transferlab.errors import FullDiskError
from transferlab.lease import held
from transferlab.records import (
    read_json,
    replacing,
    sha256,
    sha256_file,
    sha256_record,
    write_json,
    write_text,
)


def test_a_write_that_dies_half_way_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text('{"a": ')
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    path = tmp_path / "run.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError):
        write_json(path, {"a": Odd()})
    assert read_json(path) == {"a": 1}


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.json"
    record = {
        "nan": math.nan, "inf": [math.inf, -math.inf], "np": np.float32("nan"),
        "array": np.array([1.5, np.nan]), "int": np.int64(3), "flag": np.bool_(True),
        "path": Path("x/y"), "tuple": (1, 2), 5: None,
    }  # fmt: skip
    write_json(path, record)
    assert json.loads(path.read_text()) == {
        "nan": None, "inf": [None, None], "np": None, "array": [1.5, None], "int": 3,
        "flag": True, "path": "x/y", "tuple": [1, 2], "5": None,
    }  # fmt: skip


def test_records_are_readable_by_others(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "naïve")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "naïve"


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"run\.json is not a whole JSON record"):
        read_json(tmp_path / "run.json")


def test_hashes() -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256("") == sha256(b"") == empty
    assert sha256_record({"a": 1, "b": (2, 3.0)}) == sha256_record({"b": [2, 3.0], "a": 1})
    assert sha256_record({"a": 1}) != sha256_record({"a": 2})
    assert sha256_record({"a": 1}) != sha256_record({"a": "1"})


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_file(tmp_path / "a") == sha256(b"abc" * 100_000)


def test_files_get_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    """A group that shares a folder can read, and where the umask says so write, what lies there."""
    before = os.umask(0o002)
    try:
        write_json(tmp_path / "shared.json", {})
        with held(tmp_path / "work"):
            pass
        os.umask(0o077)
        write_json(tmp_path / "own.json", {})
    finally:
        os.umask(before)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert modes == {"shared.json": 0o664, ".work.lease.000001": 0o664, "own.json": 0o600}


def save_arrays(path: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, a=np.zeros(400_000))


WRITERS = {
    "text": lambda path: path.write_text("x" * 3_000_000),
    "parquet": lambda path: pd.DataFrame(np.random.default_rng(0).random((300_000, 1))).to_parquet(
        path
    ),
    "checkpoint": lambda path: torch.save({"a": torch.zeros(750_000)}, path),
    "weights": lambda path: save_file({"a": torch.zeros(750_000)}, path),
    "arrays": save_arrays,
}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=list(WRITERS))
def test_a_full_disk_is_named_and_nothing_half_written_stays(
    writer: Callable[[Path], object], small_disk: Path
) -> None:
    path = small_disk / "deep" / "file"
    write_text(path, "old")

    def write() -> None:
        with replacing(path) as temporary:
            writer(temporary)

    with pytest.raises(FullDiskError, match=r"the disk of .*deep is full: file needs more") as full:
        write()
    assert "\n" not in str(full.value)
    assert str(pickle.loads(pickle.dumps(full.value))) == str(full.value)
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_a_mistake_is_told_as_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file"):
        (tmp_path / "nowhere").read_text()
