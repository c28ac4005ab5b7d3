"""A run that is killed and started again ends like one that never was, to the last bit."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from safetensors.numpy import load_file

PROGRAM = Path(sys.executable).parent / "transferlab"
EVERY = 3
"""Optimiser steps between two checkpoints."""
RUN = (
    "run", "source=glyphs", "source.dataset.per_class=12", "source.pretrain.budget.steps=60",
    "source.pretrain.batch_size=32", "target.shots=5", "batch_size=8", "budget.steps=60",
    "optimizer.lr=1e-2", "trainer.precision=32-true",
    "trainer=cpu", "trainer.threads=1", "trainer.validations=6", "trainer.log_every=1",
    "trainer.accumulate=2", "target.max_validation=40", "backbone.image_size=16",
    "augmentation=light", "+backbone.kwargs.drop_path_rate=0.2", f"checkpoint.every_steps={EVERY}",
)  # fmt: skip
"""Dropped paths, augmentation and micro-batches; checkpoints and validations fall apart."""


def directory(folder: str) -> Path:
    (found,) = (Path(folder) / "runs").iterdir()
    return found


def steps_done(folder: str) -> int:
    """Return the last step in the lines that a running process has written."""
    lines = [
        line
        for path in Path(folder).glob("runs/*/metrics.jsonl")
        for line in path.read_text().split("\n")[:-1]
    ]
    return int(json.loads(lines[-1])["step"]) if lines else 0


def kill_at(step: int, *line: str, folder: str) -> None:
    """Start a run and end it without notice once it has done ``step`` steps."""
    with subprocess.Popen([PROGRAM, *line], stderr=subprocess.PIPE) as process:
        before = steps_done(folder)
        while steps_done(folder) < step or steps_done(folder) == before:
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def left_behind(folder: str) -> dict[str, Any]:
    run = directory(folder)
    record = json.loads((run / "run.json").read_text())
    return {
        "metrics": record["metrics"],
        "curve": record["curve"],
        "status": record["status"],
        "run_id": record["run_id"],
        "selected": record["selected_step"],
        "multiply_adds": record["cost"]["training_multiply_adds"],
        "lines": (run / "metrics.jsonl").read_text(),
        "ledger": (run / "ledger.jsonl").read_text(),
    }


PHASES = {
    "fine_tune": [(4, 55)],
    "gradual_unfreezing": [(4, 10), (12, 20), (22, 30), (32, 40), (42, 50), (52, 57)],
    "lp_ft": [(4, 27), (32, 55)],
    "plateau_unfreezing": [(4, 18), (33, 55)],  # the first ends at 20 or 30
}
"""Optimiser steps that lie in each phase of a strategy, to kill at."""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", PHASES)
def test_a_run_killed_in_every_phase_goes_on_to_the_same_end(strategy: str, place: Path) -> None:
    chance = random.SystemRandom()
    steps = [
        chance.choice([s for s in range(low, high) if s % EVERY and s % 10])
        for low, high in PHASES[strategy]
    ]
    line = [*RUN, f"strategy={strategy}"]
    if strategy == "gradual_unfreezing":
        line.append("strategy.callbacks.gradual_unfreezing.share=0.9")
    subprocess.run([PROGRAM, *line, "output_dir=whole"], check=True, stdout=subprocess.DEVNULL)
    for step in steps:
        kill_at(step, *line, "output_dir=killed", folder="killed")
        assert not list(Path("killed").glob("runs/*/run.json")), f"killed too late, {steps}"
        assert list(Path("killed").glob("runs/*/resume/*.ckpt"))
    subprocess.run([PROGRAM, *line, "output_dir=killed"], check=True, stdout=subprocess.DEVNULL)
    assert left_behind("killed") == left_behind("whole"), steps
    whole, killed = directory("whole"), directory("killed")
    predictions = parquet.read_table(whole / "predictions.parquet")
    assert predictions.equals(parquet.read_table(killed / "predictions.parquet")), steps
    weights, other = (
        load_file(run / "checkpoints" / "last.safetensors") for run in (whole, killed)
    )
    assert weights.keys() == other.keys()
    assert all(np.array_equal(weights[key], other[key]) for key in weights), steps
    record = json.loads((killed / "run.json").read_text())
    assert record["resumed_at_steps"], steps
    assert all(0 < step < 60 and step % EVERY == 0 for step in record["resumed_at_steps"])
    assert not (killed / "resume").exists()
