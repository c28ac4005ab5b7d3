"""Peak memory of a run that streams its images: of few, of twenty times as many, and twice over.

``python experiments/benchmarks/memory.py`` writes JPEGs to a temporary folder, lets the command
decode them once (1.3 GB), and then trains on them with ``trainer.data=stream``. The smaller set is
what a process holds of a file before it gives pages back.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from in_turn import Outcome, command, in_turn, show, write
from PIL import Image

from transferlab.datasets.store import HELD

PROGRAM = Path(sys.executable).parent / "transferlab"
SIZE = 224
FEW = HELD // (3 * SIZE * SIZE)
TIMES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.environ["TRANSFERLAB_CACHE"] = f"{place}/cache"
        folders = {count: draw(Path(place) / str(count), count) for count in (FEW, TIMES * FEW)}
        few, many = folders.values()
        for folder in folders.values():
            run(folder, 1, "dry_run=true")()
        arms = {
            f"{FEW} images": run(few, 1),
            f"{TIMES * FEW} images": run(many, 1),
            f"{TIMES * FEW} images twice": run(many, 2),
        }
        rows = in_turn(arms, args.rounds, warm_up=False)
    show(rows, next(iter(arms)))
    for name in arms:
        peaks = [row["peak_mb"] for row in rows if row["arm"] == name]
        print(f"{name:<24} peak {min(peaks):.0f} to {max(peaks):.0f} MB")
    write(rows, "memory")


def draw(folder: Path, count: int) -> Path:
    """Write so many JPEGs of two classes, dark and bright ones: a run that learns nothing fails."""
    chance = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        noise = chance.integers(0, 128, (14, 14, 3), dtype=np.uint8) + 128 * (number % 2)
        picture = Image.fromarray(noise.astype(np.uint8))
        picture = picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        picture.save(place / f"{number:06d}.jpg", quality=60)
    return folder


def run(root: Path, epochs: int, *more: str) -> Callable[[], Outcome]:
    """Passes over the images by the command; the peak is of its process."""

    def made() -> Outcome:
        baselines = Path(os.environ["TRANSFERLAB_CACHE"]) / "baselines"
        shutil.rmtree(baselines, ignore_errors=True)  # or the first run would do more than others
        with tempfile.TemporaryDirectory() as folder:
            return command(
                PROGRAM, "run", "target=image_folder", f"target.root={root}", "source=none",
                "strategy=scratch", "backbone=timm", "backbone.name=test_vit",
                f"backbone.image_size={SIZE}",
                "target.near_duplicates=ignore", "target.test=0.01", "target.max_validation=20",
                "trainer=cpu", "trainer.data=stream", "trainer.workers=0", "budget.steps=null",
                f"budget.epochs={epochs}", f"output_dir={folder}", *more,
            )  # fmt: skip

    return made


if __name__ == "__main__":
    main()
