import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transferlab.analysis.status import read_status
from transferlab.errors import UserError
from transferlab.lease import held

HOLD = "import sys,time; from pathlib import Path; from transferlab.lease import held\n"
HOLD += "with held(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, status: str | None = None, **record: Any) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("seed: 1\nbudget:\n  steps: 40\npurpose: replicate\n")
        if status:
            base = {"status": status, "purpose": "replicate", "cost": {"total_seconds": 10.0}}
            (folder / "run.json").write_text(json.dumps(base | record))
        return folder

    return make


def test_every_state_is_read_from_files(run, tmp_path: Path) -> None:
    run("a", "done")
    run("b", "diverged", strategy="fine_tune", source="glyphs", seed=3, reason="NaN at step 4")
    run("c")
    at_work, gone = run("d"), run("e")
    (at_work / "metrics.jsonl").write_text('{"step": 7}\n{"step": 1')
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, gone / "run"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    with held(at_work / "run"):
        status = read_status(tmp_path)
    assert status.counts == {"done": 1, "diverged": 1, "queued": 1, "running": 1, "lost": 1}
    assert status.by_purpose == {"replicate": status.counts}
    (busy,) = status.running
    assert (busy.run, busy.step, busy.steps) == ("d", 7, 40)
    assert (status.seconds, status.left) == (20.0, 30.0), "three to make, one at a time, 10 s each"
    (failure,) = status.failures
    assert (failure.what, failure.reason) == ("fine_tune from glyphs, seed 3", "NaN at step 4")
    assert read_status(tmp_path).counts["queued"] == 2, "who let go left it to others"


def test_failures_show_the_end_of_their_log(run, tmp_path: Path) -> None:
    log = tmp_path / "rank0.log"
    log.write_text("one\n\ntwo\nthree\nCUDA out of memory\n")
    run("a", "failed", reason="out of memory", log=str(log))
    run("b", "failed", reason="killed", log=str(tmp_path / "gone.log"))
    first, second = read_status(tmp_path).failures
    assert first.log == ("two", "three", "CUDA out of memory")
    assert second.log == ()


def test_what_a_study_still_plans_is_queued(run, tmp_path: Path) -> None:
    run("a", "done")
    arms = [{"runs": [{"seed": seed, "run_id": name} for seed, name in enumerate("ab")]}]
    study = {"command": "transferlab run experiment=x", "cells": [{"arms": arms}]}
    (tmp_path / "study.json").write_text(json.dumps(study))
    assert read_status(tmp_path).counts == {"done": 1, "queued": 1}
    (tmp_path / "study.json").write_text(json.dumps(study | {"planned": 12}))
    status = read_status(tmp_path)
    assert (status.counts["queued"], status.left) == (11, None)
    assert status.command == "transferlab run experiment=x"


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no runs/ folder"):
        read_status(tmp_path)
