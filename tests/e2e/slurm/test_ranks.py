"""Runs on two devices of one node, and on one device of each of two nodes."""

from typing import Any

import pytest
from torch import distributed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.xdist_group("slurm"),
    pytest.mark.skipif(not distributed.is_gloo_available(), reason="gloo is missing"),
]


def test_both_layouts_are_stopped_resumed_and_equal_to_a_run_without_slurm(slurm: Any) -> None:
    layouts = {
        "one_node": ("trainer.devices=2", "hydra.launcher.partition=low"),
        "two_nodes": ("trainer.num_nodes=2", "hydra.launcher.partition=high"),
    }
    slurm.here("run", *slurm.line, "trainer.devices=2", "name=whole")
    for name, layout in layouts.items():
        begun = slurm.order(0, "wait")
        driver = slurm.start("run", *slurm.line, *layout, f"name={name}", *slurm.launcher)
        slurm.until(begun.exists)
        (note,) = slurm.notes(name)
        slurm.notify(note["job"])
        slurm.end(driver)
        record = slurm.records(name)[0]
        assert record["world_size"] == 2
        # asked in one step, agreed on during the next, saved before the one after
        assert record["resumed_at_steps"] == [slurm.step + 2]
        assert slurm.digests(name) == slurm.digests("whole"), name
        assert slurm.ended(note["job"]) == ["COMPLETED"]
    log = slurm.place / "outputs" / "two_nodes" / "runs" / record["run_id"] / "log"
    assert (log / "launch-node1.log").is_file()


def test_a_rank_that_fails_on_another_node_ends_the_run_with_its_reason(slurm: Any) -> None:
    node = (slurm.place / "acting.py").read_text()
    only_second = node.replace(
        "if trainer.global_step", "if trainer.global_rank == 0 or trainer.global_step"
    )
    (slurm.place / "acting.py").write_text(only_second)
    slurm.order(0, "raise")
    driver = slurm.start("run", *slurm.line, "trainer.num_nodes=2", "name=broken", *slurm.launcher)
    slurm.end(driver, code=1)
    record = slurm.records("broken")[0]
    assert (record["status"], record["reason"]) == ("failed", "RuntimeError: out of luck (rank 1)")
    assert record["log"].endswith("rank1.log")
    (note,) = slurm.notes("broken")
    assert slurm.ended(note["job"]) == ["FAILED"]
