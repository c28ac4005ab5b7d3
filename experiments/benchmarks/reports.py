"""The report over 100, 1,000 and 10,000 records: seconds and peak memory of the whole command.

Records are copies of a small study's own, with ids, cells and seeds of their own and answers that
differ: ten arms beside scratch, eight seeds, as many cells as it takes.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from in_turn import command, in_turn, show, write

PROGRAM = Path(sys.executable).parent / "transferlab"
SIZES = (100, 1_000, 10_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "study", type=Path, nargs="?",
        help="a finished study of one cell, as a template; the embedded one is run without it",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        template = args.study or embedded(Path(place) / "study")
        folders = {size: Path(place) / str(size) for size in args.sizes}
        for size, folder in folders.items():
            grow(template, folder, size)
        arms = {
            f"{size:,} records": partial(command, PROGRAM, "report", folder)
            for size, folder in folders.items()
        }
        rows = in_turn(arms, args.rounds)
    show(rows, next(iter(arms)))
    for row in rows[-len(arms) :]:
        print(f"{row['arm']:<20} peak {row['peak_mb']:.0f} MB")
    write(rows, "reports")


def embedded(folder: Path) -> Path:
    """Run the embedded study."""
    command = [PROGRAM, "run", "experiment=digits", f"output_dir={folder}"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return folder


def grow(template: Path, folder: Path, size: int) -> None:
    """Copy a study's cell until there are so many records."""
    study = json.loads((template / "study.json").read_text())
    (cell,) = study["cells"]
    runs = {path.name: path for path in (template / "runs").iterdir()}
    count = -(-size // len(runs))
    chance = np.random.default_rng(0)
    cells = []
    for number in range(count):
        text = json.dumps(cell)
        for name in runs:
            text = text.replace(name, renamed(name, number))
        made = json.loads(text)
        made["values"] |= {"target.split_seed": number}
        made["id"] = ", ".join(f"{key}={value}" for key, value in made["values"].items())
        cells.append(made)
        for name, path in runs.items():
            copy(path, folder / "runs" / renamed(name, number), name, number, chance)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(study | {"cells": cells}))


def renamed(name: str, number: int) -> str:
    return f"{number:04x}{name[4:]}"


def copy(source: Path, target: Path, name: str, number: int, chance: np.random.Generator) -> None:
    target.mkdir(parents=True)
    new = renamed(name, number)
    (target / "run.json").write_text((source / "run.json").read_text().replace(name, new))
    for path in source.glob("*.parquet"):
        table = parquet.read_table(path)
        flipped = chance.random(len(table)) < 0.02
        guess = table["prediction"].to_numpy().copy()
        guess[flipped] = table["label"].to_numpy()[flipped]
        column = table.schema.get_field_index("prediction")
        parquet.write_table(
            table.set_column(column, "prediction", pa.array(guess)), target / path.name
        )
    for path in source.glob("*.jsonl"):
        shutil.copy(path, target / path.name)


if __name__ == "__main__":
    main()
