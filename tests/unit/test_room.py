"""What runs leave on the disk is known before they run; a lack of memory is told from a mistake."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from transferlab.errors import FullDiskError, RunError, UserError
from transferlab.planning import Plan
from transferlab.room import kept_bytes, passing_bytes, require_room, room_named
from transferlab.run import execute

MakePlan = Callable[..., Plan]


def test_what_a_run_leaves_is_about_what_was_expected(make_plan: MakePlan) -> None:
    plan = make_plan("strategy=scratch", "checkpoint.keep=all", "budget.steps=6",
                     "trainer.validations=3", "seed=5")  # fmt: skip
    execute(plan)
    there = sum(p.stat().st_size for p in plan.directory.rglob("*") if p.is_file())
    assert 0.8 < kept_bytes(plan, "all") / there < 1.25
    weights = kept_bytes(plan, "last") - kept_bytes(plan, "none")
    kept = (plan.directory / "checkpoints/last.safetensors").stat().st_size
    assert weights == pytest.approx(kept, rel=0.05)
    assert kept_bytes(plan, "all") - kept_bytes(plan, "last") == 3 * weights


def test_a_state_to_resume_from_takes_what_was_expected(make_plan: MakePlan) -> None:
    plan = make_plan("strategy=scratch", "checkpoint.every_steps=1", "seed=6")
    weights = kept_bytes(plan, "last") - kept_bytes(plan, "none")
    assert passing_bytes(plan) == 9 * weights
    never = make_plan("checkpoint.every_steps=null", "checkpoint.every_minutes=null")
    assert passing_bytes(never) == 0


def test_folders_of_one_disk_share_its_room(small_disk: Path) -> None:
    require_room({small_disk / "a": 1_000_000, small_disk / "b": 500_000}, "it")
    with pytest.raises(UserError, match=r"it needs about 2\.4 MB on the disk of .*/a, where 2"):
        require_room({small_disk / "a": 1_200_000, small_disk / "b": 1_200_000}, "it")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(), torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)  # fmt: skip
def test_memory_that_ends_is_told_with_the_settings_that_help(
    error: Exception, make_plan: MakePlan
) -> None:
    cfg = make_plan("batch_size=12", "trainer.precision=bf16-mixed").cfg
    with pytest.raises(RunError) as caught, room_named(cfg, Path("x")):
        raise error
    assert "batch_size=12" in str(caught.value)
    assert "trainer.accumulate=2" in str(caught.value)
    assert "precision" not in str(caught.value), "that is set already"


def test_the_ranks_of_all_nodes_share_what_is_accumulated(make_plan: MakePlan) -> None:
    cfg = make_plan("batch_size=12").cfg
    for nodes, helps in ((1, True), (4, False)):  # of 12 images, 4 ranks get 3, and no halves
        cfg.trainer.num_nodes = nodes
        with pytest.raises(RunError) as caught, room_named(cfg, Path("x")):
            raise MemoryError
        assert ("trainer.accumulate=2" in str(caught.value)) is helps


def test_other_errors_stay_what_they_are(make_plan: MakePlan) -> None:
    cfg = make_plan().cfg
    for error in (RuntimeError("shapes differ"), OSError(errno.EIO, "broken"), UserError("no")):
        with pytest.raises(type(error)) as caught, room_named(cfg, Path("x")):
            raise error
        assert caught.value is error
    with pytest.raises(FullDiskError, match="the disk of x is full"), room_named(cfg, Path("x")):
        raise OSError(errno.ENOSPC, "No space left on device")
