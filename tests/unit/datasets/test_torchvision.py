import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transferlab.datasets.torchvision import CLASSIFICATION, TorchVision
from transferlab.errors import UserError


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """Write MNIST's raw files with 30 + 20 images."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 20)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 0x803, count, 28, 28) + images.tobytes()
        )
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 0x801, count) + labels.tobytes()
        )
    return tmp_path


def test_train_argument_gives_train_and_test(mnist: Path) -> None:
    dataset = TorchVision("mnist", mnist)
    index = dataset.index()
    assert dataset.name == "MNIST"
    assert index.splits == ("train",) * 30 + ("test",) * 20
    assert index.labels[:10].tolist() == list(range(10))
    assert index.classes[3] == "3 - three"
    assert index.ids[30] == "test/000000"
    assert dataset.image(49).size == (28, 28)
    with pytest.raises(IndexError):
        dataset.image(50)


def test_stamp_follows_the_pixels(mnist: Path) -> None:
    first = TorchVision("MNIST", mnist).index().stamp
    assert TorchVision("MNIST", mnist).index().stamp == first
    path = mnist / "MNIST" / "raw" / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[20] ^= 255
    path.write_bytes(content)
    assert TorchVision("MNIST", mnist).index().stamp != first


def test_split_argument_gives_what_the_set_has(tmp_path: Path, make_folder: Any) -> None:
    for name in ("train", "valid", "test"):
        make_folder(tmp_path / "country211" / name, {"AD": 2, "AE": 1})
    index = TorchVision("Country211", tmp_path).index()
    assert index.classes == ("AD", "AE")
    assert index.splits == ("train",) * 3 + ("validation",) * 3 + ("test",) * 3
    assert index.labels.tolist() == [0, 0, 1] * 3


def test_a_set_without_splits_has_none(tmp_path: Path, make_folder: Any) -> None:
    make_folder(tmp_path / "eurosat" / "2750", {"Forest": 2, "River": 2}, ".jpg")
    index = TorchVision("EuroSAT", tmp_path).index()
    assert index.splits is None
    assert index.labels.tolist() == [0, 0, 1, 1]


def test_options_reach_the_set(tmp_path: Path) -> None:
    options = {"size": 12, "image_size": (3, 8, 8), "num_classes": 3}
    dataset = TorchVision("FakeData", tmp_path, options=options)
    index = dataset.index()
    assert len(index) == 12
    assert dataset.image(0).size == (8, 8)
    with pytest.raises(UserError, match=r"FakeData.*sise.*target.dataset.options"):
        TorchVision("FakeData", tmp_path, options={"sise": 12}).index()


def test_an_unknown_name_gives_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'CIFAR11'; nearest: CIFAR10"):
        TorchVision("CIFAR11", tmp_path)
    with pytest.raises(UserError, match="no classification set 'CocoDetection'"):
        TorchVision("CocoDetection", tmp_path)


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "Flowers102", "EuroSAT", "SVHN", "EMNIST"])
def test_missing_files_ask_for_a_download(tmp_path: Path, name: str) -> None:
    options = {"split": "letters"} if name == "EMNIST" else None
    with pytest.raises(UserError, match=rf"{name} isn't in .*`target.dataset.download=true`"):
        TorchVision(name, tmp_path, options=options).index()


def test_every_listed_name_is_torchvisions() -> None:
    import torchvision.datasets

    assert not [name for name in CLASSIFICATION if not hasattr(torchvision.datasets, name)]


def test_a_broken_image_is_named(tmp_path: Path, make_folder: Any) -> None:
    make_folder(tmp_path / "eurosat" / "2750", {"Forest": 2, "River": 2}, ".jpg")
    dataset = TorchVision("EuroSAT", tmp_path)
    (tmp_path / "eurosat" / "2750" / "River" / "img_001.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match=r"EuroSAT/all/000003 can't be read"):
        dataset.image(3)
