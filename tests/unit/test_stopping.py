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
from transferlab.stopping import (
    AGAIN_SECONDS,
    NOTICE,
    STOPPABLE,
    Stopped,
    interrupts_kept,
    stopping,
)

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


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_that_was_swallowed_comes_again() -> None:
    went_on: list[bool] = []

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0)
        except BaseException:
            went_on.append(True)
        time.sleep(60)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)
    with pytest.raises(KeyboardInterrupt), interrupts_kept():
        work()
    assert went_on
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)) == handlers
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.usefixtures("interruptible")
def test_whoever_cleans_up_after_an_interrupt_is_left_in_peace() -> None:
    done: list[str] = []

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            time.sleep(60)
        except KeyboardInterrupt:
            time.sleep(4 * AGAIN_SECONDS)
            done.append("handled")
            raise SystemExit(1) from None  # as Lightning does
        finally:
            time.sleep(4 * AGAIN_SECONDS)
            done.append("cleaned up")

    with pytest.raises(SystemExit), interrupts_kept():
        work()
    assert done == ["handled", "cleaned up"]


def test_an_interrupt_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_kept():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
