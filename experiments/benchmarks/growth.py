"""How cost grows as work grows: images, layer groups, heads, seeds and target sizes.

``python experiments/benchmarks/growth.py AXIS...``; every axis doubles its work from arm to arm.
Printed is, beside the medians, the exponent b of seconds ~ work^b between neighbours: 1 is linear,
below 1 work is shared.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from math import log
from pathlib import Path
from statistics import median

import fits
from in_turn import Outcome, Row, in_turn, write

from transferlab.run import starting_weights

PROGRAM = Path(sys.executable).parent / "transferlab"
AXES: dict[str, tuple[int, ...]] = {
    "images": (105, 210, 420, 840), "features": (105, 210, 420, 840), "heads": (10, 20, 40, 80),
    "groups": (2, 4, 8), "seeds": (2, 4, 8), "sizes": (1, 2, 4),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("axes", nargs="*", default=list(AXES), metavar="AXIS")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", help="a folder of classes; the embedded digits without it")
    args = parser.parse_args()
    rows: list[Row] = []
    for axis in args.axes:
        arms = {f"{axis} {work}": arm(axis, work, args.data) for work in AXES[axis]}
        rows += (own := in_turn(arms, args.rounds, axis=axis))
        seconds = [median(r["seconds"] for r in own if r["arm"] == name) for name in arms]
        for number, name in enumerate(arms):
            line = f"{name:<20}{seconds[number]:>8.2f} s"
            if number:
                ratio = AXES[axis][number] / AXES[axis][number - 1]
                line += f"{log(seconds[number] / seconds[number - 1]) / log(ratio):>8.2f}"
            print(line)
    write(rows, "growth")


def arm(axis: str, work: int, data: str | None) -> Callable[[], Outcome]:
    """One amount of work along one axis."""
    if axis in ("seeds", "sizes"):
        return study(axis, work)
    strategy = {"images": "fine_tune", "groups": "gradual_unfreezing"}.get(axis)
    args = argparse.Namespace(
        strategy=strategy or "feature_extraction", backbone="resnet10t", size=64, images=840,
        epochs=4, batch_size=32, data=data,
    )  # fmt: skip
    more: tuple[str, ...] = ()
    if axis in ("images", "features"):
        args.images = work
    elif axis == "groups":
        args.backbone, args.images = "vit_tiny_patch16_224", 210
        more = (f"+backbone.kwargs.depth={work}",)
    plan = fits.planned(args, *more)
    weights = starting_weights(plan.cfg)
    if axis == "heads":
        return fits.grid(args, weights, cold=False, count=work)
    return fits.ours(args, weights, fits.task_of(plan, args), *more)


def study(axis: str, work: int) -> Callable[[], Outcome]:
    """The embedded study, short and without tuning, by its command."""
    shots = ",".join(str(5 + number) for number in range(work)) if axis == "sizes" else "5"
    seeds = 4 if axis == "sizes" else work

    def run() -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            os.environ.setdefault("TRANSFERLAB_CACHE", str(Path(tempfile.gettempdir()) / "growth"))
            began = time.perf_counter()
            subprocess.run(
                [PROGRAM, "run", "experiment=digits", f"output_dir={folder}", "study.tune=null",
                 f"study.seeds={seeds}", "study.looks=[]", "budget.steps=60",
                 f"study.cells={{target.shots: [{shots}]}}"],
                check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            return Outcome(time.perf_counter() - began)

    return run


if __name__ == "__main__":
    main()
