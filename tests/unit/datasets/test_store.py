from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transferlab.datasets.base import Index
from transferlab.datasets.cache import Decoded, ImageSpec
from transferlab.datasets.corruption import CORRUPTIONS
from transferlab.datasets.digits import Digits
from transferlab.datasets.image_folder import ImageFolder
from transferlab.datasets.npy import read_images
from transferlab.datasets.policy import ImagePolicy
from transferlab.datasets.store import ImageStore, open_store
from transferlab.errors import UserError


@pytest.fixture
def root(tmp_path: Path, make_folder: Any) -> Path:
    made: Path = make_folder(tmp_path / "data", {"cat": 20, "dog": 20})
    return made


def store(root: Path, kind: str = "none", seed: int = 0) -> ImageStore:
    return open_store(
        ImageFolder(root),
        spec=ImageSpec(8),
        policy=ImagePolicy(),
        corruption=kind,
        corruption_seed=seed,
        folder=root.parent / "cache",
    )


def test_a_store_hands_out_batches_by_position(root: Path) -> None:
    opened = store(root)
    assert len(opened) == 40
    assert opened.shape == (3, 8, 8)
    assert opened.classes == ("cat", "dog")
    batch = opened.images(np.array([30, 1, 30]))
    assert batch.shape == (3, 3, 8, 8)
    assert np.array_equal(batch[0], batch[2])
    batch[:] = 0  # a copy of its own
    assert opened.images(np.array([1])).max() > 0
    assert type(batch) is np.ndarray


def test_every_corruption_has_its_own_fingerprint_and_one_cache(root: Path) -> None:
    prints = {store(root, kind, seed).fingerprint for kind in CORRUPTIONS for seed in (0, 1)}
    assert len(prints) == 7  # of "none" the seed doesn't count
    assert len(list((root.parent / "cache").glob("*.npy"))) == 1


def test_labels_of_index_and_store_agree(root: Path) -> None:
    plain, mixed = store(root), store(root, "random_labels")
    assert np.array_equal(mixed.labels, mixed.index.labels)
    assert not np.array_equal(mixed.labels, plain.labels)
    assert mixed.content == plain.content


def test_an_unknown_corruption_fails_before_decoding(root: Path) -> None:
    with pytest.raises(UserError, match="nearest: noise"):
        store(root, "nois")
    assert not (root.parent / "cache").exists()


def test_digits_open(tmp_path: Path) -> None:
    opened = open_store(Digits(), spec=ImageSpec(32), policy=ImagePolicy(), folder=tmp_path)
    assert opened.shape == (1, 32, 32)
    assert len(set(opened.content)) == 1797


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux alone tells")
def test_reading_a_large_file_does_not_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty times the bound goes by, once and five times over."""
    bound, count = 2 * 2**20, 40 * 2**20 // 3072
    path = tmp_path / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8))
    index = Index(tuple(map(str, range(count))), np.zeros(count, np.int64), ("a",), stamp="x")
    content = ("",) * count
    opened = ImageStore(Decoded(read_images(path), index, content, (), "x"))
    monkeypatch.setattr("transferlab.datasets.store.HELD", bound)

    def held() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssFile:")[1].split()[0]) * 1024

    before, peak = held(), 0
    for _ in range(5):
        for start in range(0, count, 64):
            opened.images(np.arange(start, min(start + 64, count)))
            peak = max(peak, held() - before)
    assert peak < 4 * bound, "pages around those asked for come along"
