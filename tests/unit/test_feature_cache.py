"""Activations on disk: whole or not there, computed once, bounded."""

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from transferlab.feature_cache import ENDING, Activations, FeatureCache

CPU = torch.device("cpu")


def some(rows: int = 4, seed: int = 0) -> Activations:
    numbers = torch.Generator().manual_seed(seed)
    maps = torch.randn(rows, 2, 3, 5, generator=numbers)
    return Activations((maps, maps[:, 0, 0, 0].bfloat16()), (True, False), 12_345_678_901)


def never() -> Activations:
    raise AssertionError("it was computed before")


def test_what_was_kept_comes_back_to_the_bit(tmp_path: Path) -> None:
    cache, made = FeatureCache(tmp_path / "new", 1e6), some()
    assert cache.get("key", lambda: made, CPU) is made
    found = FeatureCache(tmp_path / "new", 1e6).get("key", never, CPU)
    assert (found.maps, found.multiply_adds) == (made.maps, made.multiply_adds)
    assert found.bytes == made.bytes == 4 * (30 * 4 + 2)
    for one, other in zip(found.values, made.values, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "text"])
def test_a_damaged_file_is_made_anew(harm: str, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, 1e6)
    cache.get("key", some, CPU)
    path = tmp_path / f"key{ENDING}"
    content = bytearray(path.read_bytes())
    content[-3] ^= 16
    harmed = {"cut": content[:-40], "flip": content, "empty": b"", "text": b"no tensors here"}
    path.unlink()
    path.write_bytes(bytes(harmed[harm]))
    made: list[int] = []

    def compute() -> Activations:
        made.append(1)
        return some()

    cache.get("key", compute, CPU)
    assert made == [1]
    assert torch.equal(cache.get("key", never, CPU).values[0], some().values[0])


def test_those_go_that_were_not_used_for_longest(tmp_path: Path) -> None:
    size = 500_000
    cache = FeatureCache(tmp_path, 2.5 * size)

    def make() -> Activations:
        return Activations((torch.zeros(size // 4),), (False,), 0)

    for number, key in enumerate(("a", "b")):
        cache.get(key, make, CPU)
        os.utime(tmp_path / f"{key}{ENDING}", (number, number))
    cache.get("a", never, CPU)  # b is now the one that was not used for longer
    cache.get("c", make, CPU)
    assert sorted(entry.path.name for entry in cache.entries()) == [f"a{ENDING}", f"c{ENDING}"]
    assert not list(tmp_path.glob(".b*")), "nor its lease"
    assert sum(entry.size for entry in cache.entries()) <= 2.5 * size


def test_what_is_larger_than_the_bound_is_not_kept_and_drives_nothing_out(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, 2_000)
    cache.get("small", some, CPU)
    cache.get("large", lambda: some(400), CPU)
    assert [entry.path.name for entry in cache.entries()] == [f"small{ENDING}"]


def test_a_folder_that_can_not_be_made_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    found = FeatureCache(tmp_path / "file" / "below", 1e6).get("key", some, CPU)
    assert torch.equal(found.values[0], some().values[0])


def test_a_fault_of_the_computation_is_told(tmp_path: Path) -> None:
    def fails() -> Activations:
        raise ValueError("shapes")

    with pytest.raises(ValueError, match="shapes"):
        FeatureCache(tmp_path, 1e6).get("key", fails, CPU)
    assert not list(tmp_path.glob(f"*{ENDING}"))


def _fill(folder: Path, started: Any) -> None:
    def compute() -> Activations:
        (folder / f"computed-{os.getpid()}").touch()
        return some()

    started.wait(60)
    FeatureCache(folder, 1e6).get("key", compute, CPU)


def test_processes_that_ask_at_once_compute_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    started = context.Barrier(3)
    workers = [context.Process(target=_fill, args=(tmp_path, started)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    assert len(list(tmp_path.glob("computed-*"))) == 1
    assert not list(tmp_path.glob("*.tmp"))
