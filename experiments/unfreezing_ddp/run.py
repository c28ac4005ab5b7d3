"""Do replicas stay equal when layers thaw? Two CPU processes per job. See README.md."""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
PEERS = ("lightning", "finetuning-scheduler")
GAP_ARMS = (*PEERS, "transferlab", "find_unused", "none")
TIME_ARMS = ("rewrap", "find_unused", "none")
MOMENTS = ("frozen", "thaw", "thawed")
Row = dict[str, Any]


def job(kind: str, arms: Sequence[str], **settings: Any) -> list[Row]:
    """Train arms in two processes, one after another, and return what rank 0 reports."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        options = [text for k, v in settings.items() for text in (f"--{k}", str(v))]
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *(str(HERE / "rank.py"), kind, "--arms", *arms, "--out", str(out), *options),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{kind} job of {', '.join(arms)} failed:\n{done.stderr[-4000:]}")
        return json.loads(out.read_text(encoding="utf-8"))


def gaps(arms: Sequence[str], settings: Row) -> list[Row]:
    """Compare the ranks' weights, each arm in processes of its own."""
    rows: list[Row] = []
    for arm in arms:
        if installed(arm):
            rows += job("gap", [arm], repetitions=1, **settings)
        else:
            rows.append({"arm": arm, "version": "not installed"})
    return rows


def installed(arm: str) -> bool:
    try:
        version(arm if arm in (*PEERS, "transferlab") else "lightning")
    except PackageNotFoundError:
        return False
    return True


def write(path: Path, rows: list[Row]) -> None:
    columns = max(rows, key=len).keys()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def print_gaps(rows: list[Row]) -> None:
    print("\nlargest gap between the ranks' backbone weights (and between their sums)")
    measured = [row for row in rows if "epoch" in row]
    epochs = sorted({row["epoch"] for row in measured})
    print("| arm | " + " | ".join(f"epoch {e}" for e in epochs) + " | head, at most |")
    print("| --- |" + " --- |" * (len(epochs) + 1))
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in measured if row["arm"] == arm]
        cells = [f"{r['backbone_max_gap']:.2g} ({r['backbone_sum_gap']:.2g})" for r in own]
        head = f"{max(r['head_max_gap'] for r in own):.2g}" if own else ""
        print(f"| {arm} | " + " | ".join(cells or ["not installed"] * len(epochs)) + f" | {head} |")


def print_times(rows: list[Row]) -> None:
    for unit, title in (("seconds", "ms a step"), ("cpu_seconds", "ms of CPU a step, one rank")):
        print(f"\n{title}: medians (range of the repetitions)")
        print("| arm | head trains | first step after the thaw | all train |")
        print("| --- | --- | --- | --- |")
        for arm in TIME_ARMS:
            cells = []
            for moment in MOMENTS:
                own = [1000 * row[f"{moment}_{unit}"] for row in rows if row["arm"] == arm]
                cells.append(f"{median(own):.0f} ({min(own):.0f} to {max(own):.0f})")
            print(f"| {arm} | " + " | ".join(cells) + " |")


def verdict(rows: list[Row]) -> int:
    """Say what must hold: no gap in ours or without callbacks, one in each peer."""
    wrong = []
    for arm in dict.fromkeys(row["arm"] for row in rows if "epoch" in row):
        largest = max(row["backbone_max_gap"] for row in rows if row["arm"] == arm)
        if (largest > 0) != (arm in PEERS):
            wrong.append(f"{arm}: {largest:.3g}")
    print("\nunexpected: " + "; ".join(wrong) if wrong else "\nas expected: only the peers drift")
    return int(bool(wrong))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7, help="of the timing; 0 leaves it out")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the CSV files")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    small = {"model": "test_resnet", "epochs": 6, "steps": 8, "batch": 4, "pixels": 32}
    rows = gaps(GAP_ARMS, small)
    write(arguments.out / "results.csv", rows)
    print_gaps(rows)
    if arguments.repetitions > 0:
        larger = {"model": "resnet18", "epochs": 1, "steps": 30, "batch": 8, "pixels": 32}
        timed = job("time", TIME_ARMS, repetitions=arguments.repetitions, **larger)
        write(arguments.out / "timings.csv", timed)
        print_times(timed)
    return verdict(rows)


if __name__ == "__main__":
    raise SystemExit(main())
