"""Checkpoints: whole or left out, two at the most, and of one run alone."""

from pathlib import Path
from typing import Any

import pytest
import torch

from transferlab.checkpoints import (
    clear_leftovers,
    last_checkpoint,
    remove_checkpoints,
    write_checkpoint,
)
from transferlab.errors import RunError, UserError


def state(step: int) -> dict[str, Any]:
    return {"global_step": step, "weights": {"w": torch.full((100,), float(step))}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (5, 10, 15):
        write_checkpoint(tmp_path / "resume", "ab", state(step))
    return tmp_path / "resume"


def step_of(path: Path | None) -> int:
    assert path is not None
    return int(torch.load(path, weights_only=True)["global_step"])


def test_the_last_two_are_kept_and_the_last_is_found(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        f"step-00000000{step}.{kind}" for step in (10, 15) for kind in ("ckpt", "json")
    ]
    assert step_of(last_checkpoint(folder, "ab")) == 15
    assert torch.load(last_checkpoint(folder, "ab"), weights_only=True)["run_id"] == "ab"


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "missing", "note"])
def test_a_damaged_one_is_named_and_the_one_before_it_is_used(
    folder: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "step-0000000015.ckpt"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[:-1])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "missing":
        path.unlink()
    else:
        path.with_suffix(".json").write_text('{"run_id": "ab"')
    assert step_of(last_checkpoint(folder, "ab")) == 10
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line


def test_without_a_whole_one_there_is_none(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("*.ckpt"):
        path.write_bytes(b"gone")
    assert last_checkpoint(folder, "ab") is None
    assert last_checkpoint(tmp_path / "nowhere", "ab") is None


def test_one_without_its_note_does_not_count_and_is_cleared(folder: Path) -> None:
    (folder / "step-0000000015.json").unlink()
    (folder / ".step-0000000020.ckpt.x.tmp").write_bytes(b"half")
    assert step_of(last_checkpoint(folder, "ab")) == 10
    clear_leftovers(folder)
    assert sorted(p.name for p in folder.iterdir()) == [
        "step-0000000010.ckpt", "step-0000000010.json",
    ]  # fmt: skip


def test_one_of_another_run_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="run ab, not of run cd"):
        last_checkpoint(folder, "cd")


def test_what_cannot_be_read_back_is_refused_when_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="plain containers"):
        write_checkpoint(tmp_path / "resume", "ab", {"global_step": 1, "path": tmp_path})
    assert last_checkpoint(tmp_path / "resume", "ab") is None


def test_they_are_removed_whole(folder: Path) -> None:
    remove_checkpoints(folder)
    remove_checkpoints(folder)
    assert not folder.exists()
