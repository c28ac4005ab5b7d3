"""What a run asks of the machine is looked at before any data is read."""

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig

from transferlab import machine
from transferlab.checks import check
from transferlab.errors import UserError
from transferlab.planning import Plan

Compose = Callable[..., DictConfig]
MakePlan = Callable[..., Plan]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("batch_size=30", "trainer.accumulate=4"), "batch_size=30 .* Set batch_size to 28 or 32"),
        (("batch_size=3", "trainer.accumulate=4"), "Set batch_size to 4"),
        (("batch_size=8", "trainer.accumulate=2", "trainer.devices=8"), "Set batch_size to 16"),
        (
            ("source=glyphs", "trainer.accumulate=3", "batch_size=33"),
            "source.pretrain.batch_size=",
        ),
        (("trainer.accumulate=0",), "trainer.accumulate=0"),
        (("checkpoint.every_steps=0",), "checkpoint.every_steps=0"),
        (("checkpoint.every_minutes=0",), "checkpoint.every_minutes=0"),
        (("trainer.sync_norms=true",), "trainer.sync_norms=true: batch norms on the CPU"),
        (("trainer.num_nodes=2",), "trainer.num_nodes=2: .* Add hydra/launcher=slurm"),
        (("trainer.num_nodes=0",), "trainer.num_nodes=0: expected"),
        (
            ("trainer.precision=16-mixed", "trainer.gradient_clip=1"),
            "trainer.gradient_clip=1.*Set optimizer.fused=false",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    compose: Compose, overrides: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 64)
    with pytest.raises(UserError, match=message) as caught:
        check(compose("trainer=cpu", *overrides))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("overrides", [
    ("batch_size=32", "trainer.accumulate=4"), ("batch_size=1",),
    ("checkpoint.every_minutes=null",), ("trainer.compile=true",),
])  # fmt: skip
def test_what_can_be_done_is_not(compose: Compose, overrides: tuple[str, ...]) -> None:
    check(compose("trainer=cpu", *overrides))


def test_one_gpu_has_no_others_to_synchronise_norms_with(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="one device has no others"):
        check(compose("trainer.sync_norms=true"))
    check(compose("trainer.sync_norms=true", "trainer.devices=2"))


def test_compiling_needs_a_compiler(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda _: None)
    check(compose("trainer=cpu"))
    with pytest.raises(UserError, match="C\\+\\+ compiler"):
        check(compose("trainer=cpu", "trainer.compile=true"))


def test_ways_of_computing_that_change_a_result_name_the_run(
    make_plan: Callable[..., Plan],
) -> None:
    plain = make_plan("strategy=scratch")
    same = ("trainer.accumulate=1", "trainer.compile=false", "trainer.gradient_checkpointing=true")
    assert {make_plan("strategy=scratch", one).run_id for one in same} == {plain.run_id}
    other = ("trainer.accumulate=2", "trainer.compile=true", "trainer.sync_norms=true")
    ids = {make_plan("strategy=scratch", one).run_id for one in other}
    assert len(ids | {plain.run_id}) == 4


def test_machines_of_a_cluster_are_not_counted_here_but_shares_are(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.cluster, "elsewhere", True)
    elsewhere = ("trainer.accelerator=cuda", "trainer.devices=8", "trainer.num_nodes=4")
    check(compose(*elsewhere, "batch_size=64"))
    with pytest.raises(UserError, match=r"batch_size=48 .* over 32 x 1 .*trainer.num_nodes"):
        check(compose(*elsewhere, "batch_size=48"))


def test_processes_on_one_node_or_on_several_are_one_run(make_plan: MakePlan) -> None:
    two = make_plan("trainer.devices=2", "trainer.num_nodes=1")
    assert make_plan("trainer.devices=1", "trainer.num_nodes=2").run_id == two.run_id
    assert make_plan("trainer.devices=1", "trainer.num_nodes=1").run_id != two.run_id
