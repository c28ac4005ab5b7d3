"""The benchmarks' README says what their results say."""

import csv
import re
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "benchmarks"
SECONDS = sorted((FOLDER / "results").glob("fits-*.csv"))


@pytest.mark.parametrize("path", SECONDS, ids=lambda path: path.stem)
def test_every_arm_s_median_is_in_a_table(path: Path) -> None:
    cells = {
        cell.strip()
        for line in (FOLDER / "README.md").read_text().splitlines()
        if line.startswith("|")
        for cell in line.split("|")
    }
    arms: dict[str, list[float]] = {}
    for row in csv.DictReader(path.read_text().splitlines()):
        arms.setdefault(row["arm"], []).append(float(row["seconds"]))
    assert arms
    assert {f"{median(seconds):.2f}" for seconds in arms.values()} <= cells


def test_every_script_that_make_bench_runs_is_told() -> None:
    told = set(re.findall(r"^\| `(\w+\.py)", (FOLDER / "README.md").read_text(), re.MULTILINE))
    (rule,) = re.findall(r"^bench:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert told == {*re.findall(r"\w+\.py", rule), "gpu.py"}
