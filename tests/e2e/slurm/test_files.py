"""The files to copy, as they are."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), pytest.mark.xdist_group("slurm")]
FOLDER = Path(__file__).parents[3] / "slurm"


def test_a_sweep_follows_a_run_that_stopped_and_went_on(
    slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("run.sbatch", "sweep.sbatch", "pretrain_then_sweep.sh"):
        shutil.copy(FOLDER / name, name)
    line = " ".join(f"'{part}'" for part in slurm.line)
    script = Path("pretrain_then_sweep.sh")
    alone = rf"  {line} hydra/launcher=basic seed=0 \1)"
    text, count = re.subn(r"  source=glyphs.*(name=\w+)\)", alone, script.read_text())
    text, more = re.subn(
        r'(sweep.sbatch" -m) source=(.|\n)*name=letters', rf"\1 {line} seed=1,2 name=letters", text
    )
    assert (count, more) == (1, 1)
    script.write_text(text)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    begun = slurm.order(0, "wait")
    told = subprocess.run(["./pretrain_then_sweep.sh"], capture_output=True, text=True, check=True)
    first, second = re.findall(r"job (\d+)", told.stdout)
    slurm.until(begun.exists)
    slurm.notify(first)
    slurm.until(lambda: (slurm.release(), slurm.states(second) == ["COMPLETED"])[1])
    assert slurm.states(first) == ["COMPLETED"]
    assert slurm.records("pretrain")[0]["resumed_at_steps"] == [slurm.step + 1]
    assert {r["status"] for r in slurm.records("letters").values()} == {"done"}
