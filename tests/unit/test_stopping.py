"""A run that is asked to stop saves between two steps, leaves no record, and goes on to the end."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from transferlab.checkpoints import FOLDER, last_checkpoint
from transferlab.module import TransferModule
from transferlab.planning import Plan
from transferlab.records import sha256_file
from transferlab.run import execute
from transferlab.stopping import NOTICE, STOPPABLE, Stopped, interrupts_kept, stopping

MakePlan = Callable[..., Plan]
RUN = ("source=none", "strategy=scratch", "budget.steps=6", "checkpoint.every_minutes=null")


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that the scheduler may ask to stop."""
    monkeypatch.setenv(STOPPABLE, "1")
    before = signal.getsignal(NOTICE)
    stopping.listen()
    yield
    signal.signal(NOTICE, before)
    stopping.possible = stopping.asked = False


def send_notice_in(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    plain = TransferModule.training_step

    def noticed(self: TransferModule, batch: Any, batch_idx: int) -> Any:
        if self.global_step == step:
            os.kill(os.getpid(), NOTICE)
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(TransferModule, "training_step", noticed)


@pytest.mark.usefixtures("listening")
def test_a_notice_within_a_step_is_heeded_before_the_next(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = execute(make_plan(*RUN, folder=tmp_path / "whole"))
    plan = make_plan(*RUN, folder=tmp_path / "stopped")
    with monkeypatch.context() as patch:
        send_notice_in(patch, step=2)
        with pytest.raises(Stopped):
            execute(plan)
    assert not (plan.directory / "run.json").exists(), "nothing failed, and nothing is done"
    saved = last_checkpoint(plan.directory / FOLDER, plan.run_id)
    assert saved is not None
    assert saved.stem.endswith("3"), "the step in which the notice came was finished"
    stopping.asked = False
    resumed = execute(plan)
    assert resumed["resumed_at_steps"] == [3]
    assert resumed["metrics"] == whole["metrics"]
    files = [Path(r, "runs", plan.run_id, "checkpoints/last.safetensors")
             for r in (tmp_path / "whole", tmp_path / "stopped")]  # fmt: skip
    assert sha256_file(files[0]) == sha256_file(files[1])


@pytest.mark.usefixtures("listening")
def test_a_notice_before_the_first_step_costs_nothing(make_plan: MakePlan) -> None:
    plan = make_plan(*RUN)
    stopping.asked = True
    with pytest.raises(Stopped):
        execute(plan)
    assert not (plan.directory / "run.json").exists()
    stopping.asked = False
    assert execute(plan)["resumed_at_steps"] == []


def test_who_records_failures_lets_a_stop_pass() -> None:
    assert not issubclass(Stopped, Exception)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A process that heeds Ctrl-C, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_that_a_finaliser_dropped_comes_again() -> None:
    class Closing:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0)  # here the handler has run

    dropped: list[bool] = []

    def work() -> None:
        Closing()
        dropped.append(True)
        time.sleep(60)

    with pytest.raises(KeyboardInterrupt), interrupts_kept():
        work()
    assert dropped, "it was raised anew, not the first time"
