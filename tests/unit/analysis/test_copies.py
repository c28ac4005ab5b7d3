"""Cells judged by copies of the process come to what one process comes to."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from transferlab.analysis.copies import LEAST, each
from transferlab.analysis.judge import judge

CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
several = pytest.mark.skipif(CORES < 2, reason="one core, so no copies are made")


def alone(code: str) -> str:
    """What a fresh interpreter, which PyTorch is not loaded in, prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_many_cells_give_the_same_bytes_either_way(synthetic: Any) -> None:
    Plan = synthetic.Plan
    arms = [synthetic.SCRATCH, Plan("a", shift=0.3), Plan("b", shift=-0.3, missing=(1,))]
    folder: Path = synthetic(items=60).write(dict.fromkeys(range(1, LEAST + 2), arms))
    damaged = sorted((folder / "runs").glob("*/predictions.parquet"))[:2]
    for path in damaged:
        path.write_bytes(b"no parquet")
    names = ("verdicts.json", "verdicts.csv", "runs.csv", "report.html", "card.json")
    assert "torch" in sys.modules, "so this process judges by itself"
    judge(folder)
    here = {name: (folder / name).read_bytes() for name in names}
    said = alone(
        "from pathlib import Path\nfrom transferlab.analysis.judge import judge\n"
        f"print(len(judge(Path({str(folder)!r})).notices))"
    )
    assert said.strip() == "1"
    assert {name: (folder / name).read_bytes() for name in names} == here


@several
def test_copies_work_in_order_and_with_what_this_process_has() -> None:
    said = alone(
        "import os\nfrom transferlab.analysis.copies import each\nheld = object()\n"
        "found = each(lambda n: (n, id(held), os.getpid()), range(20))\n"
        "print([n for n, _, _ in found] == list(range(20)), {at for _, at, _ in found} == "
        "{id(held)}, os.getpid() not in {pid for _, _, pid in found})"
    )
    assert said.split() == ["True", "True", "True"]


@several
def test_what_a_copy_raises_is_raised() -> None:
    said = alone(
        "from transferlab.analysis.copies import each\neach(lambda n: 1 / (n - 9), range(12))"
    )
    assert said.strip().endswith("ZeroDivisionError: division by zero")


def test_few_things_need_no_copies() -> None:
    assert each(lambda n: (n, os.getpid()), range(LEAST - 1)) == [
        (n, os.getpid()) for n in range(LEAST - 1)
    ]
