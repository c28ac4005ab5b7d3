"""A real SLURM on this machine: two nodes, started once a session by slurm/local-cluster.sh."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

PROGRAM = Path(sys.executable).parent / "transferlab"
SCRIPT = Path(__file__).parents[3] / "slurm" / "local-cluster.sh"
PATIENCE = 500.0
"""Seconds after which something that was waited for is taken to hang."""
LINE = (
    "source=none", "strategy=scratch", "target.shots=10", "batch_size=16", "budget.steps=24",
    "optimizer.lr=1e-2", "trainer=cpu", "trainer.threads=1", "trainer.validations=4",
    "trainer.precision=32-true",
    "trainer.log_every=1", "target.max_validation=40", "backbone.image_size=16",
    "augmentation=light", "+backbone.kwargs.drop_path_rate=0.1", "checkpoint.every_minutes=null",
    "+strategy.callbacks.acting._target_=acting.Acting", "allowed_packages=[acting,says,shop]",
)  # fmt: skip
"""Dropped paths and augmentation draw numbers; no checkpoint but the one that a notice asks for."""
SLURM = ("hydra/launcher=slurm", "hydra.launcher.poll_seconds=0.5", "hydra.launcher.time=30")
STEP = 7
"""The step in which runs wait to be told to stop."""
ACTING = f'''
"""Does what a file says of this run's seed; without a file nothing at all."""
import os, signal, sys, time
from pathlib import Path
from transferlab.callbacks.base import StrategyCallback
from transferlab.stopping import stopping

class Acting(StrategyCallback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        order = Path("orders") / str(pl_module.seed)
        if trainer.global_step != {STEP} or not order.is_file():
            return
        what = order.read_text()
        order.with_suffix(".begun").touch()
        if what == "wait":
            while not stopping.asked:
                time.sleep(0.02)
        elif what == "raise":
            raise RuntimeError("out of luck")
        elif what == "exit":
            sys.exit(3)
        elif what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
'''


@dataclass(frozen=True)
class Cluster:
    """The cluster, as somebody in ``place`` uses it."""

    place: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    line: tuple[str, ...] = LINE
    launcher: tuple[str, ...] = SLURM
    step: int = STEP

    def ask(self, *command: str) -> str:
        """Run one of SLURM's programs."""
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def here(self, *arguments: str) -> None:
        """Run a command line of ours without the cluster."""
        done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stderr  # 1: no better than chance, after few steps

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command line of ours."""
        process = subprocess.Popen(
            [PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.started.append(process)
        return process

    def end(self, process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
        """Wait for a command line, letting requeued jobs start at once."""
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None:
            assert time.monotonic() < deadline, self.ask("squeue", "--states=all")
            self.release()
            time.sleep(0.5)
        out, err = process.communicate()
        assert process.returncode == code, err + out
        return out, err

    def release(self) -> None:
        """Let requeued jobs start, which SLURM holds back for two minutes."""
        subprocess.run([SCRIPT, "release"], check=True)

    def until(self, there: Callable[[], Any]) -> None:
        """Wait for something."""
        deadline = time.monotonic() + PATIENCE
        while not there():
            assert time.monotonic() < deadline, self.ask("squeue", "--states=all")
            time.sleep(0.1)

    def order(self, seed: int, what: str) -> Path:
        """Order what a run is to do; returns a file that is there once it has begun to."""
        folder = self.place / "orders"
        folder.mkdir(exist_ok=True)
        (folder / str(seed)).write_text(what)
        begun = folder / f"{seed}.begun"
        begun.unlink(missing_ok=True)
        return begun

    def notify(self, job: str) -> None:
        """Send what SLURM sends some time before the time limit."""
        self.ask("scancel", f"--signal={signal.SIGUSR2.name[3:]}", job)

    def states(self, job: str) -> list[str]:
        """Return the states of a job's tasks."""
        said = self.ask("squeue", "--noheader", "--array", "--states=all", f"--jobs={job}",
                        "--format=%K|%T")  # fmt: skip
        return [line.partition("|")[2] for line in sorted(said.split())]

    def ended(self, job: str) -> list[str]:
        """Return the states of a job's tasks once all have ended: records come a little earlier."""
        going = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED"}
        self.until(lambda: not going & set(self.states(job)))
        return self.states(job)

    def digests(self, name: str, seed: int = 0) -> dict[str, Any]:
        """Return what has to be equal to the last bit, however a run got to its end."""
        record = self.records(name)[seed]
        run = self.place / "outputs" / name / "runs" / record["run_id"]
        weights = run / "checkpoints" / "last.safetensors"
        return {
            "run": record["run_id"],
            "weights": weights.is_file() and hashlib.sha256(weights.read_bytes()).hexdigest(),
            "predictions": parquet.read_table(run / "predictions.parquet").to_pydict(),
            "lines": (run / "metrics.jsonl").read_text(),
            "metrics": record["metrics"],
            "status": record["status"],
        }

    def notes(self, name: str) -> list[dict[str, Any]]:
        """Return what is noted of the jobs of a study."""
        folder = self.place / "outputs" / name / "slurm"
        found = [json.loads(path.read_text()) for path in folder.glob("[0-9]*.json")]
        return sorted(found, key=lambda note: int(note["job"]))

    def records(self, name: str) -> dict[int, dict[str, Any]]:
        """Return the records of a study's runs by seed."""
        folder = self.place / "outputs" / name / "runs"
        found = [json.loads(path.read_text()) for path in folder.glob("*/run.json")]
        return {record["seed"]: record for record in found}


def lacking() -> str | None:
    """Install SLURM where that is allowed; say why there is none."""
    if sys.platform != "linux":
        return "SLURM needs Linux"
    if shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            return "SLURM is missing, and only root with apt may install it"
        done = subprocess.run([SCRIPT, "install"], capture_output=True, text=True, check=False)
        if done.returncode:
            return f"SLURM could not be installed: {done.stderr[-300:]}"
    return None


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Bring the cluster up, once; skip where there can't be one."""
    reason = lacking()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("cluster")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLUSTER_DIR", str(folder))
        patch.setenv("CLUSTER_PORT", str(port if port < 60_000 else port - 10_000))
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        for above in (folder, *folder.parents):  # munged wants a path that others can pass
            if above.stat().st_mode & 0o011 != 0o011:
                above.chmod(above.stat().st_mode | 0o011)
        done = subprocess.run([SCRIPT, "start"], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"SLURM did not start here: {done.stderr[-300:]}")
        try:
            yield folder
        finally:
            subprocess.run([SCRIPT, "stop"], check=True)


@pytest.fixture
def slurm(started: Path, place: Path) -> Iterator[Cluster]:
    """The cluster, from an empty working directory with a module of the user's."""
    del started
    (place / "acting.py").write_text(ACTING)
    cluster = Cluster(place)
    yield cluster
    for process in cluster.started:
        process.kill()
        process.communicate()
    subprocess.run(["scancel", f"--user={os.geteuid()}"], check=True)
