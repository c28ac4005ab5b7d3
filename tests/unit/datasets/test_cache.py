import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from transferlab.datasets import cache
from transferlab.datasets.base import Index
from transferlab.datasets.cache import Decoded, ImageSpec, decode, resize
from transferlab.datasets.image_folder import ImageFolder
from transferlab.datasets.policy import ImagePolicy
from transferlab.errors import UserError

SPEC = ImageSpec(size=8)
PLAIN = ImagePolicy()
SKIP = ImagePolicy(broken="skip")


class Counting:
    """A folder that counts how many images were opened."""

    def __init__(self, root: Path) -> None:
        self.inner, self.opened = ImageFolder(root), 0

    def index(self) -> Index:
        return self.inner.index()

    def image(self, position: int) -> Image.Image:
        self.opened += 1
        return self.inner.image(position)


def run(root: Path, folder: Path, spec: ImageSpec = SPEC, policy: ImagePolicy = PLAIN) -> Decoded:
    dataset = ImageFolder(root)
    return decode(dataset, dataset.index(), spec, policy, folder)


@pytest.fixture
def root(tmp_path: Path, make_folder: Any) -> Path:
    made: Path = make_folder(tmp_path / "data", {"cat": 3, "dog": 2})
    return made


def test_images_are_decoded_once(root: Path, tmp_path: Path) -> None:
    dataset = Counting(root)
    for _ in range(3):
        decoded = decode(dataset, dataset.index(), SPEC, PLAIN, tmp_path / "cache")
    assert dataset.opened == 5
    assert isinstance(decoded.images, np.memmap)
    assert decoded.images.shape == (5, 3, 8, 8)
    assert not decoded.images.flags.writeable


def test_size_policy_and_changed_files_each_make_a_cache(
    root: Path, tmp_path: Path, make_image: Any
) -> None:
    folder = tmp_path / "cache"
    run(root, folder)
    run(root, folder, ImageSpec(size=9))
    run(root, folder, policy=SKIP)
    assert len(list(folder.glob("*.npy"))) == 3
    make_image(root / "dog" / "img_009.png")
    assert len(run(root, folder).images) == 6


def test_grey_images_keep_one_channel_until_colour_appears(tmp_path: Path, make_image: Any) -> None:
    for item in range(3):
        make_image(tmp_path / "data" / "a" / f"{item}.png", mode="L", size=(8, 8))
        make_image(tmp_path / "data" / "b" / f"{item}.png", mode="L", size=(8, 8))
    grey = run(tmp_path / "data", tmp_path / "cache")
    assert grey.images.shape == (6, 1, 8, 8)
    make_image(tmp_path / "data" / "b" / "1.png", mode="RGB", size=(8, 8))
    mixed = run(tmp_path / "data", tmp_path / "cache")
    assert mixed.images.shape == (6, 3, 8, 8)
    same = [0, 1, 2, 3, 5]
    assert np.array_equal(mixed.images[same], np.repeat(grey.images[same], 3, axis=1))
    expected = np.asarray(Image.open(tmp_path / "data" / "b" / "1.png")).transpose(2, 0, 1)
    assert np.array_equal(mixed.images[4], expected)


def test_threads_give_what_one_thread_gives(
    tmp_path: Path, make_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_folder(tmp_path / "data", {"a": 40, "b": 40})
    one = run(data, tmp_path / "one")
    monkeypatch.setattr(cache, "_WORTH_A_THREAD", 0.0)
    monkeypatch.setattr(cache, "_CHUNK", 7)
    many = run(data, tmp_path / "many")
    assert np.array_equal(one.images, many.images)
    assert one.fingerprint == many.fingerprint


def test_progress_ends_at_the_total(tmp_path: Path, make_folder: Any) -> None:
    dataset = ImageFolder(make_folder(tmp_path / "data", {"a": 30, "b": 30}))
    seen: list[tuple[int, int]] = []
    decode(
        dataset,
        dataset.index(),
        SPEC,
        PLAIN,
        tmp_path / "cache",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (60, 60)


@pytest.mark.parametrize("harm", ["cut", "changed", "no notes", "bad notes", "no images", "empty"])
def test_a_damaged_cache_is_made_again(root: Path, tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "cache"
    whole = np.array(run(root, folder).images)
    images, notes = next(folder.glob("*.npy")), next(folder.glob("*.json"))
    content = images.read_bytes()
    if harm == "cut":
        images.write_bytes(content[:-10])
    elif harm == "changed":
        images.write_bytes(content[:-10] + bytes(10))
    elif harm == "no notes":
        notes.unlink()
    elif harm == "bad notes":
        record = json.loads(notes.read_text())
        notes.write_text(json.dumps(record | {"record": record["record"].replace("0", "1")}))
    elif harm == "no images":
        images.unlink()
    else:
        images.write_bytes(b"")
        notes.write_bytes(b"")
    assert np.array_equal(run(root, folder).images, whole)


SLOW = """
import sys, time
from pathlib import Path
from transferlab.datasets.cache import ImageSpec, decode
from transferlab.datasets.image_folder import ImageFolder
from transferlab.datasets.policy import ImagePolicy

class Slow(ImageFolder):
    def image(self, position):
        if position == 3:
            time.sleep(60)
        return super().image(position)

dataset = Slow(sys.argv[1])
decode(dataset, dataset.index(), ImageSpec(size=8), ImagePolicy(), Path(sys.argv[2]))
"""


def test_a_killed_decode_leaves_nothing_half(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(root), str(folder)])
    until = time.monotonic() + 30
    while not list(folder.glob(".*.tmp")) and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not list(folder.glob("*.npy"))
    assert list(folder.glob(".*.tmp"))
    assert len(run(root, folder).images) == 5
    assert not list(folder.glob(".*.tmp"))


def test_a_broken_image_is_refused_by_name(root: Path, tmp_path: Path) -> None:
    (root / "cat" / "img_001.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"cat/img_001.png can't be read.*broken=skip"):
        run(root, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.npy"))


def test_a_broken_image_is_skipped_and_counted(root: Path, tmp_path: Path) -> None:
    (root / "cat" / "img_001.png").write_bytes(b"no image")
    for _ in range(2):  # made, then read
        decoded = run(root, tmp_path / "cache", policy=SKIP)
        assert decoded.skipped == ("cat/img_001.png",)
        assert decoded.images.shape[0] == len(decoded.index) == len(decoded.content) == 4
        assert decoded.index.labels.tolist() == [0, 0, 1, 1]
        assert "cat/img_001.png" not in decoded.index.ids


def test_skipping_keeps_splits_and_metadata_in_step(tmp_path: Path, make_folder: Any) -> None:
    root = make_folder(tmp_path / "data", {"a": 2, "b": 2})
    (root / "a" / "img_000.png").write_bytes(b"")
    dataset = ImageFolder(root)
    index = replace(
        dataset.index(),
        splits=("test", "train", "train", "test"),
        metadata={"who": ("p", "q", "r", "s")},
    )
    decoded = decode(dataset, index, SPEC, SKIP, tmp_path / "cache")
    assert decoded.index.splits == ("train", "train", "test")
    assert decoded.index.metadata == {"who": ("q", "r", "s")}


def test_refusals_by_the_policy_are_not_skipped(
    root: Path, tmp_path: Path, make_image: Any
) -> None:
    make_image(root / "cat" / "img_001.png", mode="RGBA")
    with pytest.raises(UserError, match="alpha"):
        run(root, tmp_path / "cache", policy=SKIP)


def test_a_plain_user_error_of_a_dataset_counts_as_broken(root: Path, tmp_path: Path) -> None:
    class Own(Counting):
        def image(self, position: int) -> Image.Image:
            if position == 2:
                raise UserError("number 2 is gone")
            return super().image(position)

    dataset = Own(root)
    decoded = decode(dataset, dataset.index(), SPEC, SKIP, tmp_path / "cache")
    assert len(decoded.skipped) == 1
    with pytest.raises(UserError, match="number 2 is gone"):
        decode(dataset, dataset.index(), SPEC, PLAIN, tmp_path / "cache")


def test_nothing_but_broken_images_is_an_error(root: Path, tmp_path: Path) -> None:
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="all 5 images are broken"):
        run(root, tmp_path / "cache", policy=SKIP)


def test_fingerprint_follows_content_not_place_or_names(root: Path, tmp_path: Path) -> None:
    first = run(root, tmp_path / "cache")
    moved = tmp_path / "elsewhere"
    shutil.copytree(root, moved)
    (moved / "cat" / "img_000.png").rename(moved / "cat" / "aaa.png")  # still the first
    assert run(moved, tmp_path / "cache").fingerprint == first.fingerprint
    assert run(root, tmp_path / "c", ImageSpec(size=16)).fingerprint == first.fingerprint
    (moved / "cat").rename(moved / "bird")
    assert run(moved, tmp_path / "cache").fingerprint != first.fingerprint


def test_content_is_that_of_the_full_resolution(tmp_path: Path, make_image: Any) -> None:
    for item, size in enumerate([(8, 8), (16, 16), (8, 8)]):
        path = make_image(tmp_path / "data" / ("a" if item else "b") / f"{item}.png", size=size)
        Image.new("RGB", size, (5, 5, 5)).save(path)
    decoded = run(tmp_path / "data", tmp_path / "cache")
    assert len({row.tobytes() for row in decoded.images}) == 1
    assert decoded.content[1] == decoded.content[2] != decoded.content[0]


def test_resize_crops_the_centre_of_the_longer_side() -> None:
    wide = np.zeros((4, 12, 3), dtype=np.uint8)
    wide[:, 4:8] = 200
    assert (resize(wide, ImageSpec(size=4)) == 200).all()
    assert resize(wide, ImageSpec(size=4)).shape == (3, 4, 4)
    assert resize(wide[:, :, :1], ImageSpec(size=4)).shape == (1, 4, 4)


def test_crop_pct_resizes_to_more_than_is_kept() -> None:
    ramp = np.repeat(np.arange(10, dtype=np.uint8)[None, :, None], 10, axis=0)
    kept = resize(ramp, ImageSpec(size=8, crop_pct=0.8))
    assert np.array_equal(kept[0, 0], np.arange(1, 9))


@pytest.mark.parametrize("size", [1, 7, 32, 33])
@pytest.mark.parametrize("shape", [(5, 9, 3), (100, 3, 1), (32, 32, 3)])
def test_every_shape_reaches_the_size(size: int, shape: tuple[int, int, int]) -> None:
    pixels = np.ones(shape, dtype=np.uint8)
    for crop in (1.0, 0.875, 0.95):
        assert resize(pixels, ImageSpec(size, crop_pct=crop)).shape == (shape[2], size, size)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 0}, "image_size=0"),
        ({"size": 8, "crop_pct": 0.0}, "crop_pct"),
        ({"size": 8, "crop_pct": 1.5}, "crop_pct"),
        ({"size": 8, "interpolation": "bicubik"}, "nearest: bicubic"),
    ],
)
def test_wrong_sizes_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ImageSpec(**options)


def test_a_folder_that_can_not_be_written_is_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"can't be written to .*file/cache.*TRANSFERLAB_CACHE"):
        run(root, tmp_path / "file" / "cache")


def test_two_that_ask_at_once_decode_once(root: Path, tmp_path: Path) -> None:
    datasets = [Counting(root), Counting(root)]

    def ask(dataset: Counting) -> str:
        return decode(dataset, dataset.index(), SPEC, PLAIN, tmp_path / "cache").fingerprint

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(ask, datasets))) == 1
    assert sum(dataset.opened for dataset in datasets) == 5
