"""Checkpoints that a run is resumed from: whole, checked, and never those of another run."""

import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from transferlab.errors import RunError, UserError
from transferlab.records import read_json, replacing, sha256_file, write_json

FOLDER = "resume"
"""Where they lie in a run's directory, until the run is done."""
KEPT = 2


def write_checkpoint(folder: Path, run_id: str, checkpoint: dict[str, Any]) -> Path:
    """Write a checkpoint whole or not at all, and remove all but the last two.

    A note beside it, written last, holds its checksum: what has no note is not a checkpoint.

    Args:
        folder: of one run's checkpoints.
        run_id: of that run.
        checkpoint: plain containers and tensors, with ``global_step``.

    Raises:
        RunError: it holds something that ``torch.load(weights_only=True)`` refuses.
    """
    step = int(checkpoint["global_step"])
    first = not _notes(folder)
    path = folder / f"step-{step:010d}.ckpt"
    with replacing(path) as temporary:
        torch.save(checkpoint | {"run_id": run_id}, temporary)
        if first:
            _check_plain(temporary)
        note = {"run_id": run_id, "step": step, "sha256": sha256_file(temporary)}
    write_json(path.with_suffix(".json"), note)
    for old in _notes(folder)[KEPT:]:
        old.unlink()
        old.with_suffix(".ckpt").unlink(missing_ok=True)
    return path


def last_checkpoint(folder: Path, run_id: str) -> Path | None:
    """Return the last checkpoint that is whole, or None; damaged ones are named on stderr.

    Raises:
        UserError: a checkpoint of another run lies there.
    """
    for note in _notes(folder):
        path = note.with_suffix(".ckpt")
        try:
            found = read_json(note)
            whole = path.is_file() and sha256_file(path) == found["sha256"]
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            sys.stderr.write(
                f"transferlab: the checkpoint {path} is damaged; the run goes on from the one "
                "before it, or else from the beginning.\n"
            )
            continue
        refuse_foreign(found["run_id"], run_id, folder)
        return path
    return None


def refuse_foreign(found: object, run_id: str, where: Path) -> None:
    """Raise a UserError unless a checkpoint is of this run."""
    if found != run_id:
        raise UserError(
            f"{where} holds a checkpoint of run {found}, not of run {run_id}. Remove the folder; "
            "the run then starts from the beginning."
        )


def remove_checkpoints(folder: Path) -> None:
    """Remove a run's checkpoints, once its record is written."""
    shutil.rmtree(folder, ignore_errors=True)


def clear_leftovers(folder: Path) -> None:
    """Remove what writers that were killed left behind: temporary files, checkpoints unnoted."""
    noted = {note.with_suffix(".ckpt").name for note in _notes(folder)}
    for path in folder.glob("*") if folder.is_dir() else ():
        if path.suffix == ".tmp" or (path.suffix == ".ckpt" and path.name not in noted):
            path.unlink(missing_ok=True)


def _notes(folder: Path) -> list[Path]:
    """Return the notes in a folder, the last step first."""
    return sorted(folder.glob("step-*.json"), reverse=True)


def _check_plain(path: Path) -> None:
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[-1]
        raise RunError(
            f"this run's state can't be read back from a checkpoint ({reason}). A callback's "
            "state_dict must hold plain containers and tensors alone; "
            "checkpoint.every_minutes=null trains without checkpoints."
        ) from error
