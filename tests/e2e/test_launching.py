"""Runs on several devices as people start them: records, failures and Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from torch import distributed

from transferlab.launching import FOREIGN

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not distributed.is_gloo_available(), reason="gloo is missing"),
]
PROGRAM = Path(sys.executable).parent / "transferlab"
TWO = ("trainer.devices=2", "trainer.accelerator=cpu", "name=two")
BROKEN = """
import os, signal
from lightning.pytorch import Callback
from transferlab.callbacks.base import StrategyCallback

class Raises(StrategyCallback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank == 1 and trainer.global_step == 2:
            raise RuntimeError("out of luck\\nand more")

class Dies(StrategyCallback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank == 1 and trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGKILL)

class Waits(StrategyCallback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 2:
            print("waiting", flush=True)
            import time; time.sleep(600)
"""
Cli = Callable[..., Any]


def ranks_of(folder: Path) -> list[psutil.Process]:
    """Processes that still work on a run in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def rank_variables() -> dict[str, str]:
    """What ranks find in their environment, and this process must not."""
    return {k: v for k, v in os.environ.items() if FOREIGN.fullmatch(k) or "THREADS" in k}


def only_run(folder: Path) -> Path:
    (path,) = (folder / "runs").iterdir()
    return path


def test_a_run_on_two_devices_leaves_one_record(
    cli: Cli, place: Path, overrides: Callable[..., tuple[str, ...]]
) -> None:
    before = rank_variables()
    chosen = overrides("source=glyphs", "checkpoint.keep=last", *TWO, glyphs=True)
    result = cli("run", *chosen)
    assert result.code in (0, 1), result.err  # 1: no better than chance, after so few steps
    folder = only_run(place / "outputs" / "two")
    record = json.loads((folder / "run.json").read_text())
    assert record["world_size"] == 2
    assert record["status"] in ("done", "diverged")
    assert record["cost"]["total_seconds"] > record["cost"]["fit_seconds"] > 0
    table = pd.read_parquet(folder / "predictions.parquet")
    for split in ("validation", "test"):
        rows = table[table.split == split]
        assert len(rows) == record[f"n_{split}"]
        assert rows.item_id.is_unique
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "train_loss" in line][-1] == record["budget_steps"]
    assert len((folder / "ledger.jsonl").read_text().splitlines()) == 1
    assert {p.name for p in (folder / "log").iterdir()} >= {"rank0.log", "rank1.log", "launch.log"}
    assert rank_variables() == before
    assert not ranks_of(folder)
    source = Path(os.environ["TRANSFERLAB_CACHE"]) / "runs" / record["source_id"]
    assert json.loads((source / "run.json").read_text())["world_size"] == 2
    written = (folder / "run.json").stat().st_mtime_ns
    assert cli("run", *chosen).code == result.code
    assert (folder / "run.json").stat().st_mtime_ns == written, "made once"
    shared = [o for o in chosen if not o.startswith(("trainer.devices", "name"))]
    dry = cli("run", *shared, "name=one", "--dry-run")
    assert dry.code == 0
    assert folder.name not in dry.out, "another world size is another run"


ALLOWED = ("allowed_packages=[broken]",)


@pytest.mark.parametrize(
    ("kind", "reason", "log"),
    [
        ("Raises", "RuntimeError: out of luck (rank 1)", "rank1.log"),
        ("Dies", "rank 1 was killed by signal 9", "launch.log"),
    ],
)
def test_the_reason_of_a_rank_that_fails_is_the_runs(
    kind: str, reason: str, log: str, program: Cli, place: Path,
    overrides: Callable[..., tuple[str, ...]],
) -> None:  # fmt: skip
    (place / "broken.py").write_text(BROKEN)
    (place / "json.py").write_text("raise SystemExit('this must shadow nothing')")
    node = f"+strategy.callbacks.broken._target_=broken.{kind}"
    result = program("run", *overrides(node, *ALLOWED, *TWO))
    assert result.code == 1, result.err
    assert len(result.lines) == 1
    folder = only_run(place / "outputs" / "two")
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["reason"]) == ("failed", reason)
    assert record["user_error"] is False
    assert reason in result.err
    assert record["log"] == str(folder / "log" / log)
    if kind == "Raises":
        assert "in on_train_batch_start" in Path(record["log"]).read_text()
    assert not ranks_of(folder)


def test_what_a_user_can_mend_is_told_as_ever(
    cli: Cli, place: Path, overrides: Callable[..., tuple[str, ...]]
) -> None:
    result = cli("run", *overrides("loss.class_weights=[1.0,2.0]", *TWO))
    assert result.code == 2
    assert "expected 10 positive numbers" in result.err
    record = json.loads((only_run(place / "outputs" / "two") / "run.json").read_text())
    assert record["user_error"] is True


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_the_ranks_end_with_their_parent(
    sent: signal.Signals, code: int, place: Path, overrides: Callable[..., tuple[str, ...]]
) -> None:
    (place / "broken.py").write_text(BROKEN)
    node = "+strategy.callbacks.broken._target_=broken.Waits"
    command = [PROGRAM, "run", *overrides(node, *ALLOWED, *TWO)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as parent:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            logs = list(place.glob("outputs/two/runs/*/log/rank1.log"))
            if logs and "waiting" in logs[0].read_text():
                break
            assert parent.poll() is None
            time.sleep(0.1)
        parent.send_signal(sent)
        assert parent.wait(30) == code
    folder = only_run(place / "outputs" / "two")
    deadline = time.monotonic() + 15
    while ranks_of(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not ranks_of(folder)
    assert not (folder / "run.json").exists()


def told(folder: Path) -> dict[str, list[str]]:
    """What each rank of every run that has ranks says that it was configured with, by run."""
    return {
        run.name: [
            next(line for line in log.read_text().splitlines() if line.startswith("rank "))
            for log in sorted(run.glob("log/rank*.log"))
        ]
        for run in (folder / "runs").iterdir()
        if any(run.glob("log/rank*.log"))
    }


def one_configuration_each(folder: Path, ranks: int = 2) -> int:
    """Check that the ranks of a run read one configuration, no two runs the same; count them."""
    found = told(folder)
    hashes = set()
    for run, lines in found.items():
        assert [line.partition(":")[0] for line in lines] == [
            f"rank {k} of {ranks}, run {run}" for k in range(ranks)
        ]
        (own,) = {line.rpartition(" ")[2] for line in lines}
        hashes.add(own)
    assert len(hashes) == len(found)
    return len(found)


SHORT = ("trainer.accelerator=cpu", "strategy=scratch", "source=none", "budget.steps=4")


@pytest.mark.parametrize(("devices", "launcher"), [("1,2", "basic"), ("2,1", "joblib")])
def test_devices_may_vary_from_run_to_run(
    devices: str, launcher: str, cli: Cli, program: Cli, place: Path,
    overrides: Callable[..., tuple[str, ...]],
) -> None:  # fmt: skip
    before = rank_variables()
    jobs = ("hydra.launcher.n_jobs=2",) if launcher == "joblib" else ()
    # workers outlive a command in this process, and with them the folder that they began in
    result = (program if jobs else cli)(
        "run", "-m", "seed=0,1,2", f"trainer.devices={devices}", f"hydra/launcher={launcher}",
        *jobs, *overrides(*SHORT, "name=six"),
    )  # fmt: skip
    assert result.code == 0, result.err
    records = [json.loads(p.read_text()) for p in place.glob("outputs/six/runs/*/run.json")]
    assert sorted((r["seed"], r["world_size"]) for r in records) == [
        (seed, size) for seed in (0, 1, 2) for size in (1, 2)
    ]
    assert {r["status"] for r in records} <= {"done", "diverged"}
    for record in records:
        logs = place.glob(f"outputs/six/runs/{record['run_id']}/log/rank?.log")
        assert len(list(logs)) == (2 if record["world_size"] == 2 else 0)
        assert record["curve"][-1]["step"] == 4
    assert one_configuration_each(place / "outputs/six") == 3, "of the runs on two devices"
    assert rank_variables() == before
    assert not ranks_of(place)


def test_a_run_that_is_asked_for_twice_is_made_once(
    cli: Cli, place: Path, overrides: Callable[..., tuple[str, ...]]
) -> None:
    line = ("run", "-m", "seed=0", "trainer.devices=1,2,1", *overrides(*SHORT, "name=twice"))
    result = cli(*line)
    assert result.code == 0, result.err
    assert "trainer.devices=1 was asked for more than once" in result.err
    records = [json.loads(p.read_text()) for p in place.glob("outputs/twice/runs/*/run.json")]
    assert sorted(r["world_size"] for r in records) == [1, 2]
    study = json.loads((place / "outputs/twice/study.json").read_text())
    assert [cell["id"] for cell in study["cells"]] == ["trainer.devices=1", "trainer.devices=2"]


def test_a_rank_that_fails_ends_its_run_and_the_sweep_goes_on(
    cli: Cli, place: Path, overrides: Callable[..., tuple[str, ...]]
) -> None:
    (place / "unlucky.py").write_text(
        BROKEN.replace("trainer.global_step == 2", "pl_module.seed == 1")
    )
    before = rank_variables()
    node = "+strategy.callbacks.broken._target_=unlucky.Raises"
    allowed = "allowed_packages=[unlucky]"
    result = cli("run", "-m", "seed=0,1,2", *overrides(node, allowed, *TWO, "strategy=fine_tune"))
    assert result.code == 1, result.err  # two of three is less than four fifths
    assert "out of luck (rank 1)" in result.err
    records = {}
    for path in place.glob("outputs/two/runs/*/run.json"):
        record = json.loads(path.read_text())
        records[record["seed"]] = record
    assert {seed: r["status"] == "failed" for seed, r in records.items()} == {
        0: False, 1: True, 2: False,
    }  # fmt: skip
    assert records[1]["reason"] == "RuntimeError: out of luck (rank 1)"
    assert rank_variables() == before
    assert not ranks_of(place)
