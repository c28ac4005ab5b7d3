"""The run directories are the truth, whoever dies: drivers, workers, and two drivers at once."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1600),
    pytest.mark.xdist_group("ledger"),  # one undisturbed twin
]

PROGRAM = Path(sys.executable).parent / "transferlab"
KILLS = int(os.environ.get("TRANSFERLAB_KILLS", "4"))
SEEDS = 20 if KILLS > 10 else 3
STUDY = f"""# @package _global_
defaults:
  - override /target: digits
  - override /backbone: test_resnet
  - override /tracker: counting
  - override /hydra/launcher: joblib
  - override /hydra/sweeper: study
name: short
allowed_packages: [counting]
batch_size: 8
budget: {{steps: 60}}
backbone: {{image_size: 16}}
target: {{shots: 5, max_validation: 40}}
trainer: {{accelerator: cpu, threads: 1}}
checkpoint: {{every_steps: 10}}
hydra: {{mode: MULTIRUN, launcher: {{n_jobs: 2}}}}
study:
  arms:
    fine_tune: [source=glyphs, source.dataset.per_class=12, source.pretrain.budget.steps=4, strategy=fine_tune]
    frozen: [source=glyphs, source.dataset.per_class=12, source.pretrain.budget.steps=4, strategy=feature_extraction]
  controls: false
  seeds: {SEEDS}
"""  # noqa: E501
COUNTING = """# a tracker that notes every fit
counting:
  _target_: counting.Counting
"""
MODULE = """
import os

class Counting:
    def open(self, run):
        handle = os.open("fits.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{run.run_id}\\n".encode())
        os.close(handle)
        return -1

    def log(self, values, step):
        pass

    def close(self, summary, failed):
        pass

    def publish(self, study):
        pass
"""


def declare(place: Path) -> None:
    files = {"conf/experiment/short.yaml": STUDY, "conf/tracker/counting.yaml": COUNTING}
    for name, text in (files | {"counting.py": MODULE}).items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def start(place: Path, log: str, cache: Path) -> "subprocess.Popen[bytes]":
    with (place / log).open("wb") as stream:
        return subprocess.Popen(
            [PROGRAM, "run", "experiment=short"],
            cwd=place,
            env=os.environ | {"TRANSFERLAB_CACHE": str(cache)},
            stdout=stream,
            stderr=stream,
        )


def records(place: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(p.read_text()) for p in place.glob("outputs/short/runs/*/run.json")]
    dropped = ("cost", "environment", "log", "resumed_at_steps")
    return {
        one["run_id"]: {key: value for key, value in one.items() if key not in dropped}
        for one in found
    }


def _wait_for_work(driver: "subprocess.Popen[bytes]", place: Path) -> None:
    """Wait until a run takes steps, or the driver ends."""
    begun = time.time()
    while driver.poll() is None:
        times = (path.stat().st_mtime for path in place.glob("outputs/short/runs/*/metrics.jsonl"))
        if any(at > begun for at in times):
            return
        time.sleep(0.05)


def left_behind(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*.tmp")]


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """The study, made without a disturbance, with its cache."""
    place = tmp_path_factory.mktemp("twin")
    declare(place)
    with start(place, "log", shared_cache) as driver:
        assert driver.wait() == 0, (place / "log").read_text()
    assert {record["status"] for record in records(place).values()} <= {"done", "diverged"}
    return place


def test_two_drivers_at_once_make_every_run_once(
    twin: Path, place: Path, fresh_cache: Path
) -> None:
    declare(place)
    first, second = (start(place, f"{name}.log", fresh_cache) for name in ("first", "second"))
    with first, second:
        assert first.wait() == 0, (place / "first.log").read_text()
        assert second.wait() == 0, (place / "second.log").read_text()
    assert records(place) == records(twin)
    fits = (place / "fits.txt").read_text().split()
    assert len(set(fits)) == len(fits), "no run twice"
    assert len(fits) == len(records(place)) + 1, "and their source"
    assert not left_behind(place)


def family(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        driver = psutil.Process(pid)
        workers = [
            child
            for child in driver.children(recursive=True)
            if "popen_loky" in str(child.cmdline())
        ]
        return [driver, *workers]
    return []


def test_kills_at_random_moments_lose_nothing(twin: Path, place: Path, fresh_cache: Path) -> None:
    """Drivers and workers die; the study is asked for again until it is whole."""
    declare(place)
    chance, kills = random.Random(5), 0
    seen: set[psutil.Process] = set()
    for _ in range(4 * KILLS + 4):
        with start(place, "log", fresh_cache) as driver:
            while driver.poll() is None and kills < KILLS:
                if kills % 4:  # the others come at any moment, most of them before any run
                    _wait_for_work(driver, place)
                time.sleep(chance.uniform(0.1, 4))
                alive = family(driver.pid)
                seen |= set(alive)
                victims = alive[:1] if kills % 2 else alive[1:]
                if victims and driver.poll() is None:
                    with suppress(psutil.NoSuchProcess):
                        chance.choice(victims).kill()
                        kills += 1
            code = driver.wait()
        if code == 0 and kills >= KILLS:
            break
        if code == 0:  # it got through: take some of its runs away, as if they had never been
            for path in sorted(place.glob("outputs/short/runs/*"))[::3]:
                shutil.rmtree(path)
        assert code in (0, 1, -signal.SIGKILL), (place / "log").read_text()
    assert kills == KILLS
    assert records(place) == records(twin)
    assert not left_behind(place, fresh_cache)
    left = psutil.wait_procs(seen, timeout=60)[1]
    assert not left, "no process outlives its driver"
