"""The embedded study, whole: ours, and the same runs by stock Lightning.

Once in one process after the other, which is what a shell script does (a sample of the runs, and
the time of all in proportion), once all in one process. Source runs and decoded images are made
before, for both.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from in_turn import Outcome, in_turn, show, write

PROGRAM = Path(sys.executable).parent / "transferlab"
STOCK = Path(__file__).with_name("stock.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("overrides", nargs="*", help="of the study, to make it a shorter one")
    parser.add_argument("--sample", type=int, default=10, help="runs made as separate processes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, cache = Path(place) / "study", Path(place) / "cache"
        os.environ["TRANSFERLAB_CACHE"] = str(cache)
        own = ours(folder, cache, args.overrides)
        own()
        configs = sorted(folder.glob("runs/*/config.yaml"))
        kept = Path(place) / "configs"
        paths = [shutil.copytree(c.parent, kept / c.parent.name) / "config.yaml" for c in configs]
        chosen = random.Random(0).sample(paths, min(args.sample, len(paths)))
        arms = {
            "ours": own,
            "stock Lightning, one process": stock([paths], 1.0),
            "stock Lightning, a process a run": stock(
                [[path] for path in chosen], len(paths) / len(chosen)
            ),
        }
        rows = in_turn(
            arms, args.rounds, warm_up=False, runs=len(paths), overrides=" ".join(args.overrides)
        )
    show(rows, "ours")
    write(rows, "study")


def ours(folder: Path, cache: Path, overrides: list[str]) -> Callable[[], Outcome]:
    """The command, report included; features on disk are removed before."""

    def run() -> Outcome:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(cache / "features", ignore_errors=True)
        began = time.perf_counter()
        command = [PROGRAM, "run", "experiment=digits", f"output_dir={folder}", *overrides]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        records = [json.loads(p.read_text()) for p in folder.glob("runs/*/run.json")]
        scores = [r["metrics"]["test"]["accuracy"] for r in records if r["purpose"] == "replicate"]
        return Outcome(seconds, statistics.mean(scores))

    return run


def stock(lines: list[list[Path]], factor: float) -> Callable[[], Outcome]:
    """Stock Lightning's processes, one after the other."""

    def run() -> Outcome:
        began = time.perf_counter()
        found: dict[str, float] = {}
        for paths in lines:
            command = [sys.executable, STOCK, *paths]
            made = subprocess.run(command, check=True, capture_output=True, text=True)
            found |= json.loads(made.stdout.splitlines()[-1])
        seconds = factor * (time.perf_counter() - began)
        tested = [
            score for path, score in found.items()
            if "purpose: replicate" in Path(path).read_text()
        ]  # fmt: skip
        return Outcome(seconds, statistics.mean(tested) if tested else None)

    return run


if __name__ == "__main__":
    main()
