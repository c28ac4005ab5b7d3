"""Arms that run in turn: a machine that slows down slows all of them."""

import csv
import gc
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Outcome:
    """Of one arm in one round.

    Attributes:
        seconds: that it took.
        accuracy: on test images, in [0, 1]; None where there is nothing to score.
        more: columns besides.
    """

    seconds: float
    accuracy: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


Row = dict[str, Any]


def in_turn(
    arms: Mapping[str, Callable[[], Outcome]], rounds: int, *, warm_up: bool = True, **setting: Any
) -> list[Row]:
    """Run all arms in every round, each time another one first.

    Args:
        arms: by name.
        rounds: how many.
        warm_up: run every arm once before; commands that start processes of their own need none.
        setting: what all rows say.

    Returns:
        a row for each arm and round.
    """
    rows: list[Row] = []
    names = list(arms)
    for name in names if warm_up else ():
        print(f"  warm-up {name:<40}{arms[name]().seconds:9.2f} s", flush=True)
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            gc.collect()
            outcome = arms[name]()
            rows.append(
                {**setting, "arm": name, "round": number, "seconds": round(outcome.seconds, 4),
                 "accuracy": outcome.accuracy, **outcome.more}
            )  # fmt: skip
            print(f"  round {number} {name:<40}{outcome.seconds:9.2f} s", flush=True)
    return rows


WAITER = """
import os, sys
child = os.spawnv(os.P_NOWAIT, sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(child, 0)
with open(sys.argv[1], "w") as stream:
    stream.write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Starts a command from a small process: a child's peak begins at what its parent holds."""


def command(*line: object) -> Outcome:
    """Run a command; its seconds and the peak of its memory.

    Args:
        line: a program's path and its arguments.

    Raises:
        RuntimeError: it failed.
    """
    with tempfile.NamedTemporaryFile("r") as told:
        waiter = [sys.executable, "-S", "-c", WAITER, told.name, *map(str, line)]
        began = time.perf_counter()
        made = subprocess.run(waiter, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        if made.returncode:
            raise RuntimeError(f"{' '.join(waiter[5:])} ended with {made.returncode}")
        return Outcome(seconds, None, {"peak_mb": round(int(told.read()) * 1024 / 1e6, 1)})


def show(rows: Sequence[Row], ours: str) -> None:
    """Print medians, how many times as long as ours each arm took, and accuracies."""
    print(f"\n{'arm':<42}{'median':>10}{'x ours':>9}  {'range of rounds':<18}accuracy")
    base = _seconds(rows, ours)
    for name in dict.fromkeys(row["arm"] for row in rows):
        own = _seconds(rows, name)
        ratios = [a / b for a, b in zip(own, base, strict=True)]
        scores = [r["accuracy"] for r in rows if r["arm"] == name and r["accuracy"] is not None]
        score = f"{100 * statistics.mean(scores):.1f} %" if scores else ""
        print(
            f"{name:<42}{statistics.median(own):>8.2f} s"
            f"{statistics.median(own) / statistics.median(base):>9.2f}  "
            f"{min(ratios):5.2f} to {max(ratios):5.2f}    {score}"
        )


def _seconds(rows: Sequence[Row], name: str) -> list[float]:
    return [float(row["seconds"]) for row in rows if row["arm"] == name]


def write(rows: Sequence[Row], name: str, threads: int | None = None) -> None:
    """Keep the rows as CSV, with the commit and the machine that they are of."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    notes = {
        "threads": threads or torch.get_num_threads(), "torch": torch.__version__,
        "commit": _commit(), "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }  # fmt: skip
    columns = list(dict.fromkeys(key for row in rows for key in (*row, *notes)))
    with path.open("w", newline="") as stream:
        table = csv.DictWriter(stream, columns, lineterminator="\n")
        table.writeheader()
        table.writerows({**row, **notes} for row in rows)
    print(path)


def _commit() -> str:
    said = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    )
    return said.stdout.strip()
