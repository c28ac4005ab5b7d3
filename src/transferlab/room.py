"""Room that runs take: memory that was too small, disks that are or will be too small."""

import errno
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from transferlab.assembling import build_model
from transferlab.checkpoints import KEPT
from transferlab.errors import FullDiskError, RunError, UserError
from transferlab.machine import ranks
from transferlab.planning import Plan

OTHER_FILES = 20_000
"""Bytes of a run's records and lines, about."""
MOMENTS = 3
"""A state to resume from holds the weights and, of Adam, two numbers a weight beside them."""
WORDS = (
    "out of memory", "can't allocate memory", "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)  # fmt: skip
"""How torch says that memory ran out, where it raises a plain RuntimeError."""


@contextmanager
def room_named(cfg: DictConfig, directory: Path) -> Iterator[None]:
    """Turn a lack of memory or disk inside the block into one line that names the remedy.

    Raises:
        RunError: memory ran out.
        FullDiskError: the disk of the run's directory is full.
    """
    try:
        yield
    except FullDiskError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise FullDiskError(directory, Path(error.filename or "metrics.jsonl").name, 0) from error
    except (RuntimeError, MemoryError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(word in str(error) for word in WORDS):
            raise
        raise RunError(_out_of_memory(cfg, error)) from error


def _out_of_memory(cfg: DictConfig, error: BaseException) -> str:
    said = (str(error).strip().splitlines() or ["no memory left"])[0][:160].rstrip(".")
    size, parts = int(cfg.batch_size), int(cfg.trainer.accumulate)
    ways = []
    if size % (2 * parts * ranks(cfg.trainer)) == 0:
        ways.append(f"trainer.accumulate={2 * parts} (the same batch in smaller parts)")
    if cfg.trainer.precision == "32-true":
        ways.append("trainer.precision=bf16-mixed")
    if not cfg.trainer.gradient_checkpointing:
        ways.append("trainer.gradient_checkpointing=true")
    ways.append("a smaller batch_size, backbone.image_size or backbone")
    return f"out of memory with batch_size={size} ({said}). Set {', or '.join(ways)}."


def kept_bytes(plan: Plan, keep: str) -> int:
    """Return about how many bytes a run leaves behind.

    Args:
        plan: of the run.
        keep: ``checkpoint.keep`` as it applies to this run.
    """
    data = plan.data
    rows = len(data.splits.validation) + (
        len(data.splits.test) if plan.cfg.purpose != "tune" else 0
    )
    predictions = rows * (40 + 4 * min(len(data.store.classes), 100))
    states = {"none": 0, "all": 1 + int(plan.cfg.trainer.validations)}.get(keep, 1)
    return states * _weights(plan) + predictions + OTHER_FILES


def passing_bytes(plan: Plan) -> int:
    """Return about how many bytes a run needs while it trains and gives back when it is done."""
    checkpoint = plan.cfg.checkpoint
    if checkpoint.every_steps is None and checkpoint.every_minutes is None:
        return 0
    states = MOMENTS + int(checkpoint.select == "best")
    return (KEPT + 1) * states * _weights(plan)  # the next is written before the oldest goes


def require_room(needs: Mapping[Path, int], what: str) -> None:
    """Refuse what will not fit, before anything of it runs.

    Args:
        needs: bytes by folder; folders on one disk share its room.
        what: is going to run, for the message.

    Raises:
        UserError: names the disk, what is needed and what is free.
    """
    disks: dict[int, tuple[Path, int]] = {}
    for folder, size in needs.items():
        there = next(up for up in (folder, *folder.absolute().parents) if up.is_dir())
        first, total = disks.get(there.stat().st_dev, (folder, 0))
        disks[there.stat().st_dev] = (first, total + size)
        free = shutil.disk_usage(there).free
        if total + size > free:
            raise UserError(
                f"{what} needs about {(total + size) / 1e6:,.1f} MB on the disk of {first}, where "
                f"{free / 1e6:,.1f} MB are free. Make room, set checkpoint.keep=none, or set "
                "output_dir and TRANSFERLAB_CACHE to another disk."
            )


def _weights(plan: Plan) -> int:
    classes, size = len(plan.data.store.classes), plan.data.preprocessing.size
    parts = {"backbone": plan.cfg.backbone, "head": plan.cfg.head, "seed": 0}
    return _model_bytes(OmegaConf.to_yaml(OmegaConf.create(parts), resolve=True), classes, size)


@lru_cache(maxsize=64)
def _model_bytes(parts: str, classes: int, size: int) -> int:
    cfg = OmegaConf.create(parts)
    assert isinstance(cfg, DictConfig)
    with torch.random.fork_rng(devices=[]):
        model = build_model(cfg, classes, size)
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())
