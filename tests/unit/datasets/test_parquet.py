import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from transferlab.datasets.cache import ImageSpec
from transferlab.datasets.parquet import Parquet
from transferlab.datasets.policy import ImagePolicy
from transferlab.datasets.store import open_store
from transferlab.errors import UserError

Encode = Callable[[int], bytes]


def declare(**features: Any) -> dict[bytes, bytes]:
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


FEATURES = declare(
    image={"_type": "Image"}, label={"_type": "ClassLabel", "names": ["zebra", "ant"]}
)


@pytest.fixture
def write(png_bytes: Encode) -> Callable[..., Path]:
    def make(
        path: Path,
        labels: list[Any],
        start: int = 0,
        metadata: dict[bytes, bytes] | None = FEATURES,
        paths: bool = False,
        **columns: list[Any],
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        images = [
            {"bytes": png_bytes(start + row), "path": f"x/{start + row}.png" if paths else None}
            for row in range(len(labels))
        ]
        shape = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns = {"image": pa.array(images, shape), "label": pa.array(labels), **columns}
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path, row_group_size=2)
        return path

    return make


def test_names_splits_and_metadata_are_read(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "data" / "train-00000-of-00002.parquet", [0, 1, 1], site=["a", "b", None])
    write(tmp_path / "data" / "train-00001-of-00002.parquet", [0], 3, site=["c"])
    write(tmp_path / "data" / "validation-0.parquet", [0], 4, site=["d"])
    write(tmp_path / "data" / "test-0.parquet", [1, 0], 5, site=["e", "f"])
    index = Parquet(tmp_path).index()
    assert index.classes == ("zebra", "ant")
    assert index.splits == ("test", "test", *["train"] * 4, "validation")
    assert index.labels.tolist() == [1, 0, 0, 1, 1, 0, 0]
    assert index.metadata == {"site": ("e", "f", "a", "b", "", "c", "d")}
    assert index.ids[0] == "test-0/000000"


def test_images_match_their_rows_over_files_and_row_groups(
    tmp_path: Path, write: Any, png_bytes: Encode
) -> None:
    files = [
        write(tmp_path / "a.parquet", [0, 1, 1, 0, 1]),
        write(tmp_path / "b.parquet", [0, 1, 1], 5),
    ]
    dataset = Parquet([str(path) for path in files])
    assert dataset.index().splits is None
    for position in [7, 0, 4, 2, 6, 1, 3, 5]:
        assert np.array_equal(dataset.image(position), _decoded(png_bytes(position)))
    assert len(dataset._tables) <= 3  # of five row groups


def _decoded(content: bytes) -> Any:
    import io

    return np.asarray(Image.open(io.BytesIO(content)))


def test_paths_name_the_rows_when_they_are_unique(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "a.parquet", [0, 1], paths=True)
    assert Parquet(tmp_path / "a.parquet").index().ids == ("x/0.png", "x/1.png")
    write(tmp_path / "b.parquet", [0, 1], paths=True)
    assert Parquet(tmp_path).index().ids[0] == "a/000000"


def test_labels_without_declared_names(tmp_path: Path, write: Any) -> None:
    path = write(tmp_path / "a.parquet", ["dog", "cat"], metadata=None)
    assert Parquet(path).index().classes == ("cat", "dog")
    path = write(tmp_path / "b.parquet", [10, 9], metadata=None)
    assert Parquet(path).index().classes == ("9", "10")


def test_plain_bytes_are_images_too(tmp_path: Path, png_bytes: Encode) -> None:
    table = pa.table({"img": [png_bytes(0), png_bytes(1)], "label": [0, 1]})
    pq.write_table(table, tmp_path / "a.parquet")
    dataset = Parquet(tmp_path)
    assert dataset.image(1).size == (6, 6)


def test_an_image_may_be_a_path_beside_the_file(tmp_path: Path, make_image: Any) -> None:
    make_image(tmp_path / "x.png")
    shape = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": None, "path": "x.png"}, {"bytes": None, "path": None}]
    table = pa.table({"image": pa.array(cells, shape), "label": [0, 1]})
    pq.write_table(table, tmp_path / "a.parquet")
    dataset = Parquet(tmp_path)
    assert dataset.image(0).size == (10, 8)
    with pytest.raises(UserError, match="a/000001 can't be read"):
        dataset.image(1)


def test_a_store_opens_on_it(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "train-0.parquet", [0, 1] * 20)
    store = open_store(
        Parquet(tmp_path), spec=ImageSpec(6), policy=ImagePolicy(), folder=tmp_path / "cache"
    )
    assert store.shape == (3, 6, 6)
    assert len(set(store.content)) == 40


def test_a_broken_row_is_named(tmp_path: Path) -> None:
    table = pa.table({"image": [b"no image", b""], "label": [0, 1]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="a/000000 can't be read"):
        Parquet(tmp_path).image(0)


def test_unlabelled_rows_are_refused(tmp_path: Path, write: Any) -> None:
    with pytest.raises(UserError, match=r"1 rows have a label outside the 2 .* such as -1"):
        Parquet(write(tmp_path / "a.parquet", [0, 1, -1])).index()
    with pytest.raises(UserError, match="1 of 3 rows have no label"):
        Parquet(write(tmp_path / "b.parquet", [0, 1, None])).index()


def test_one_class_is_refused(tmp_path: Path, write: Any) -> None:
    with pytest.raises(UserError, match=r"only one class \(ant\)"):
        Parquet(write(tmp_path / "a.parquet", [1, 1])).index()
    with pytest.raises(UserError, match="holds no rows"):
        Parquet(write(tmp_path / "b.parquet", pa.array([], pa.int64()))).index()


def test_wrong_columns_name_the_nearest(tmp_path: Path, write: Any) -> None:
    path = write(tmp_path / "a.parquet", [0, 1])
    expected = r"'lable' \(`target.dataset.label_column`\); nearest: label"
    with pytest.raises(UserError, match=expected):
        Parquet(path, label_column="lable").index()
    with pytest.raises(UserError, match="nearest: image"):
        Parquet(path, image_column="imag").index()


def test_several_or_no_image_columns_must_be_answered(tmp_path: Path, png_bytes: Encode) -> None:
    two = pa.table({"a": [png_bytes(0)] * 2, "b": [png_bytes(1)] * 2, "label": [0, 1]})
    pq.write_table(two, tmp_path / "two.parquet")
    with pytest.raises(UserError, match=r"several \(a, b\).*Set `target.dataset.image_column`"):
        Parquet(tmp_path / "two.parquet").index()
    assert len(Parquet(tmp_path / "two.parquet", image_column="b").index()) == 2
    pq.write_table(pa.table({"label": [0, 1]}), tmp_path / "none.parquet")
    with pytest.raises(UserError, match="none of label does"):
        Parquet(tmp_path / "none.parquet").index()


def test_files_of_no_split_beside_splits_are_refused(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "train-0.parquet", [0, 1])
    write(tmp_path / "unsupervised-0.parquet", [0, 1])
    with pytest.raises(UserError, match=r"unsupervised-0.parquet is called after no split"):
        Parquet(tmp_path).index()


def test_files_of_several_datasets_are_refused(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "a.parquet", [0, 1])
    write(tmp_path / "b.parquet", [0, 1], site=["x", "y"])
    with pytest.raises(UserError, match="Give files of one dataset"):
        Parquet(tmp_path).index()


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no gone"):
        Parquet(tmp_path / "gone").index()
    with pytest.raises(UserError, match=r"holds no .parquet file"):
        Parquet(tmp_path).index()
    (tmp_path / "bad.parquet").write_bytes(b"text")
    with pytest.raises(UserError, match=r"bad.parquet can't be read as Parquet"):
        Parquet(tmp_path).index()


def test_files_of_one_name_in_two_folders_have_their_own_ids(tmp_path: Path, write: Any) -> None:
    files = [write(tmp_path / name / "part.parquet", [0, 1]) for name in ("a", "b")]
    ids = Parquet([str(path) for path in files]).index().ids
    assert ids == ("0-part/000000", "0-part/000001", "1-part/000000", "1-part/000001")


def test_declared_classes_without_rows_are_left_out(tmp_path: Path, write: Any) -> None:
    names = {"_type": "ClassLabel", "names": {"0": "zebra", "1": "ant", "2": "bee"}}
    path = write(tmp_path / "a.parquet", [2, 1], metadata=declare(label=names))
    index = Parquet(path).index()
    assert index.classes == ("ant", "bee")
    assert index.labels.tolist() == [1, 0]
