"""Whole fits that take turns every two seconds: a machine's moods fall on all alike.

A fit takes a minute, and a shared machine may be a third slower the minute after. Each arm so runs
in a process of its own, holds the machine for a while, and sleeps while others do; its clock stands
still meanwhile. A change of turns costs an arm some 50 ms, so that they are not shorter.
"""

import gc
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from in_turn import Outcome, Row
from torch.optim.optimizer import register_optimizer_step_post_hook

TURN = 2.0
"""Seconds, to the end of the optimizer step that passes them."""
WARM = 5
"""Steps before anything is measured."""


class _WarmError(Exception):
    """Ends a fit that only warms up."""


class _Turn:
    """This process's turns; without a pipe it never waits for one."""

    def __init__(self) -> None:
        self.pipe: Connection | None = None
        self.warming = False
        self.steps = 0
        self.waited = 0.0
        self.began = 0.0

    def pass_on(self) -> None:
        if self.pipe is not None:
            ended = time.perf_counter()
            self.pipe.send(None)
            self.pipe.recv()
            self.begin()
            self.waited += self.began - ended

    def begin(self) -> None:
        self.began = time.perf_counter()


_turn = _Turn()


def clock() -> float:
    """Return seconds that pass while this process holds the machine, and no others."""
    return time.perf_counter() - _turn.waited


def step_done(*_: Any) -> None:
    """Count an optimizer step; torch's optimizers do it by themselves."""
    _turn.steps += 1
    if _turn.warming and _turn.steps == WARM:
        raise _WarmError
    if time.perf_counter() - _turn.began > TURN:
        _turn.pass_on()


def in_slices(
    arms: Mapping[str, Callable[[], Outcome]], rounds: int, threads: int, **setting: Any
) -> list[Row]:
    """Make all arms' fits in every round side by side, in turns, after a few steps to warm up.

    This process must not have computed with several threads before: their pools don't survive a
    fork.

    Args:
        arms: by name; each measures by :func:`clock`, and has a cache folder of its own.
        rounds: how many.
        threads: of each arm.
        setting: what all rows say.

    Returns:
        a row for each arm and round.

    Raises:
        RuntimeError: an arm failed; with its traceback.
    """
    context = multiprocessing.get_context("fork")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        pipes: dict[str, Connection] = {}
        for number, (name, arm) in enumerate(arms.items()):
            pipes[name], theirs = context.Pipe()
            folder = str(Path(place) / str(number))
            given = (theirs, list(pipes.values()), arm, folder, threads)
            context.Process(target=_serve, args=given, daemon=True).start()
            theirs.close()
            if said := pipes[name].recv():
                raise RuntimeError(f"{name} failed:\n{said}")
            print(f"  {name} is warm", flush=True)
        for number in range(rounds):
            shift = number % len(arms)
            names = list(arms)
            for name, outcome in _round(pipes, names[shift:] + names[:shift]).items():
                print(f"  round {number} {name:<44}{outcome.seconds:9.2f} s", flush=True)
                row = {**setting, "arm": name, "round": number}
                row |= {"seconds": round(outcome.seconds, 4), "accuracy": outcome.accuracy}
                rows.append(row | dict(outcome.more))
    return rows


def _round(pipes: Mapping[str, Connection], names: list[str]) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    while len(found) < len(names):
        for name in names:
            if name in found:
                continue
            pipes[name].send(None)
            said = pipes[name].recv()
            if isinstance(said, str):
                raise RuntimeError(f"{name} failed:\n{said}")
            if said is not None:
                found[name] = said
    return {name: found[name] for name in pipes}


def _serve(
    pipe: Connection, inherited: Sequence[Connection], arm: Callable[[], Outcome], folder: str,
    threads: int,
) -> None:  # fmt: skip
    """Make a fit each time that the parent asks for one, and end when it has ended."""
    for end in inherited:  # an end of the parent's that is open here would outlive it
        end.close()
    os.environ["TRANSFERLAB_CACHE"] = folder
    torch.set_num_threads(threads)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    register_optimizer_step_post_hook(step_done)
    try:
        _warm(arm)
        pipe.send(None)
        while True:
            pipe.recv()
            gc.collect()
            _turn.pipe = pipe
            _turn.begin()
            outcome = arm()
            _turn.pipe = None
            pipe.send(outcome)
    except EOFError:  # the parent has ended
        return
    except BaseException:
        pipe.send(traceback.format_exc())


def _warm(arm: Callable[[], Outcome]) -> None:
    """Make a few steps: imports, kernels and files are there when time counts."""
    _turn.warming = True
    try:
        arm()
    except Exception:
        if _turn.steps != WARM:  # it is not our own error, which may come wrapped in another
            raise
    _turn.warming = False
