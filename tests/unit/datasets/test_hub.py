import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transferlab.datasets.cache import ImageSpec
from transferlab.datasets.hub import Hub
from transferlab.datasets.policy import ImagePolicy
from transferlab.datasets.store import open_store
from transferlab.errors import UserError


class Rows:
    """Stands for ``datasets.Dataset`` as far as it's used, so that the extra may be missing."""

    def __init__(self, features: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        self.features, self.columns = features, columns
        self.num_rows = len(next(iter(columns.values())))
        self._fingerprint = repr(sorted(columns["label"]))

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self.columns[key]
        return {name: cells[key] for name, cells in self.columns.items()}

    def select_columns(self, names: list[str]) -> "Rows":
        assert names == ["image"]
        return self

    def cast_column(self, name: str, feature: Any) -> "Rows":
        assert name == "image"
        assert feature.decode is False
        return self


class FakeLibrary:
    class Image:
        def __init__(self, decode: bool = True) -> None:
            self.decode = decode

    class ClassLabel:
        dtype = "int64"

        def __init__(self, names: list[str]) -> None:
            self.names = names

    def __init__(self, loaded: Any) -> None:
        self.loaded, self.asked = loaded, ()

    def load_dataset(self, *given: Any, **named: Any) -> Any:
        self.asked = (given, named)
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, png_bytes: Any) -> FakeLibrary:
    features = {"image": FakeLibrary.Image(), "label": FakeLibrary.ClassLabel(["cat", "dog"])}

    def rows(start: int, count: int) -> Rows:
        images = [{"bytes": png_bytes(start + k), "path": None} for k in range(count)]
        return Rows(features, {"image": images, "label": [k % 2 for k in range(count)]})

    fake = FakeLibrary({"train": rows(0, 6), "test": rows(6, 4), "extra": rows(10, 2)})
    monkeypatch.setitem(sys.modules, "datasets", fake)  # type: ignore[arg-type]
    return fake


def test_official_splits_come_with_names(
    library: FakeLibrary, caplog: pytest.LogCaptureFixture
) -> None:
    index = Hub("pets", "small", revision="abc").index()
    assert library.asked == (("pets", "small"), {"revision": "abc"})
    assert index.splits == ("train",) * 6 + ("test",) * 4
    assert index.classes == ("cat", "dog")
    assert index.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    assert index.ids[6] == "test/000000"
    assert "splits left out: extra" in caplog.text


def test_a_store_opens_on_it(library: FakeLibrary, tmp_path: Path) -> None:
    opened = open_store(Hub("pets"), spec=ImageSpec(6), policy=ImagePolicy(), folder=tmp_path)
    assert len(set(opened.content)) == 10


def test_one_split_of_another_name_is_everything(library: FakeLibrary) -> None:
    library.loaded = {"full": library.loaded["train"]}
    index = Hub("pets").index()
    assert index.splits is None
    assert index.ids[0] == "all/000000"


def test_wrong_columns_and_splits_are_explained(library: FakeLibrary) -> None:
    with pytest.raises(UserError, match="nearest: label"):
        Hub("pets", label_column="lable").index()
    with pytest.raises(UserError, match="nearest: image"):
        Hub("pets", image_column="imge").index()
    library.loaded = {"a": library.loaded["train"], "b": library.loaded["test"]}
    with pytest.raises(UserError, match="no split called train, only a, b"):
        Hub("pets").index()


def test_a_failed_load_gives_its_reason(library: FakeLibrary) -> None:
    library.loaded = ConnectionError("no network\nmore")
    with pytest.raises(UserError, match=r"'pets' can't be loaded \(no network\).*the network"):
        Hub("pets").index()


def test_an_empty_row_is_named(library: FakeLibrary) -> None:
    library.loaded["test"].columns["image"][1] = {"bytes": None, "path": None}
    with pytest.raises(UserError, match="test/000001 can't be read"):
        Hub("pets").image(7)


def test_without_the_extra_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'transferlab\[hub\]'"):
        Hub("pets").index()


def test_the_real_library_reads_a_local_folder(
    tmp_path: Path, make_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets", reason="needs the extra `hub`")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    for split in ("train", "test"):
        make_folder(tmp_path / "data" / split, {"cat": 2, "dog": 2})
    datasets.disable_progress_bars()
    dataset = Hub("imagefolder", data_dir=str(tmp_path / "data"))
    index = dataset.index()
    assert index.classes == ("cat", "dog")
    assert index.splits == ("train",) * 4 + ("test",) * 4
    assert np.asarray(dataset.image(5)).shape == (8, 10, 3)
