"""On real images, where a machine has them: ``TRANSFERLAB_DATA`` names the folder."""

import os
from pathlib import Path

import pytest

from transferlab.datasets.cache import ImageSpec
from transferlab.datasets.grouping import resolve_groups
from transferlab.datasets.image_folder import ImageFolder
from transferlab.datasets.parquet import Parquet
from transferlab.datasets.policy import ImagePolicy
from transferlab.datasets.splits import make_splits
from transferlab.datasets.store import open_store

DATA = Path(os.environ.get("TRANSFERLAB_DATA", ""))
pytestmark = pytest.mark.skipif(
    "TRANSFERLAB_DATA" not in os.environ, reason="TRANSFERLAB_DATA names no folder of real images"
)


@pytest.mark.parametrize(("domain", "count"), [("photo", 1670), ("cartoon", 2344)])
def test_pacs_opens_and_splits(tmp_path: Path, domain: str, count: int) -> None:
    dataset = ImageFolder(DATA / "pacs96" / domain)
    store = open_store(dataset, spec=ImageSpec(32), policy=ImagePolicy(), folder=tmp_path)
    assert (len(store), len(store.classes)) == (count, 7)
    assert resolve_groups(store.index, None) is None
    splits = make_splits(store.index, store.content, None, test=0.5, validation=0.2, split_seed=0)
    assert len(splits.test) == pytest.approx(count / 2, abs=1)


def test_cifar10_is_listed_with_its_splits() -> None:
    dataset = Parquet(DATA / "cifar10")
    index = dataset.index()
    assert index.splits is not None
    assert (index.splits.count("train"), index.splits.count("test")) == (50_000, 10_000)
    assert index.classes[0] == "airplane"
    assert dataset.image(59_999).size == (32, 32)
    assert resolve_groups(index, None) is None
