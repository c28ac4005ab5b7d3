from pathlib import Path

import numpy as np
import pytest

from transferlab.datasets import npy
from transferlab.datasets.npy import check_of, read_images, write_images


def test_numpy_reads_what_is_streamed(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 6), dtype=np.uint8)
    write_images(tmp_path / "a.npy", iter(images))
    assert np.array_equal(np.load(tmp_path / "a.npy"), images)
    assert np.array_equal(read_images(tmp_path / "a.npy"), images)


def test_grey_after_colour_is_widened(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    colours = [3, 1, 1, 3]
    rows = [random.integers(0, 256, (c, 4, 4), dtype=np.uint8) for c in colours]
    write_images(tmp_path / "a.npy", iter(rows))
    whole = read_images(tmp_path / "a.npy")
    assert whole.shape == (4, 3, 4, 4)
    assert all(np.array_equal(whole[k], np.broadcast_to(rows[k], (3, 4, 4))) for k in range(4))


def test_no_image_leaves_an_empty_array(tmp_path: Path) -> None:
    write_images(tmp_path / "a.npy", iter([]))
    assert np.load(tmp_path / "a.npy").size == 0


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    def rows() -> object:
        yield np.zeros((1, 2, 2), dtype=np.uint8)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_images(tmp_path / "a.npy", rows())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_check_of_a_big_file_sees_its_length_and_both_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npy, "_BLOCK", 8)
    monkeypatch.setattr(npy, "_BLOCKS", 4)
    path = tmp_path / "big"
    content = bytes(range(200))
    path.write_bytes(content)
    whole = check_of(path)
    for harmed in (content[:-1], content + b"x", b"x" + content[1:], content[:-1] + b"x"):
        path.write_bytes(harmed)
        assert check_of(path) != whole
    path.write_bytes(content)
    assert check_of(path) == whole
