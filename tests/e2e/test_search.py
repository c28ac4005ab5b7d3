"""Studies tuned by a search: equal trials, stopped ones too, and what an interrupt leaves of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from torch import distributed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("search"),  # one study serves them all
    pytest.mark.skipif(find_spec("optuna") is None, reason="optuna is missing"),
]
PROGRAM = Path(sys.executable).parent / "transferlab"
STUDY = """# @package _global_
defaults:
  - override /target: digits
  - override /backbone: test_resnet
  - override /hydra/sweeper: study
name: searched
batch_size: 8
budget: {{steps: 12}}
optimizer: {{lr: 0.01}}
backbone: {{image_size: 16}}
target: {{shots: 5, max_validation: 40}}
trainer: {{accelerator: cpu, threads: 1, validations: 3}}
hydra: {{mode: MULTIRUN}}
study:
  arms: {{fine_tune: [source=glyphs, source.dataset.per_class=12,
    source.pretrain.budget.steps=4, strategy=fine_tune]}}
  tune:
    search:
      optimizer.lr: {{low: 1.0e-4, high: 1.0e-1, log: true}}
      optimizer.weight_decay: [0.0, 0.05, 0.1]
    {tune}
  seeds: 2
"""
TUNE = "{trials: 8, batch: 4, seeds: 2, prune: median}"


def declare(folder: Path, tune: str = TUNE, text: str = STUDY) -> None:
    """Write the study into a working directory's own configuration folder."""
    path = folder / "conf/experiment/searched.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(tune="\n    ".join(tune.strip("{}").split(", "))))


def read(folder: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in folder.glob("runs/*/run.json")]
    return {record["run_id"]: record for record in found}


def lasting(record: dict[str, Any]) -> dict[str, Any]:
    """Return what a run's record says about its result: no times, paths or machine."""
    dropped = ("cost", "environment", "log", "resumed_at_steps")
    return {key: value for key, value in record.items() if key not in dropped}


def arms(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "study.json").read_text())["cells"][0][
        "arms"
    ]
    return found


@pytest.fixture(scope="module")
def made(made_once: Callable[..., Path]) -> Path:
    """The study, made once without an interrupt: its folder."""
    return made_once(declare, "searched")


class TestRecords:
    """What a searched study says of itself."""

    def test_every_arm_gets_as_many_trials(self, made: Path) -> None:
        runs = read(made)
        for arm in arms(made):
            tuning = arm["tuning"]
            assert tuning["grid"] is None
            assert tuning["search"]["space"]["optimizer.lr"]["log"] is True
            assert (tuning["search"]["sampler"], tuning["search"]["trials"]) == ("tpe", 8)
            assert len(tuning["scores"]) == 8
            assert tuning["trials"] == len(tuning["runs"]) == 8 * len(tuning["seeds"]) == 16
            tried = iter(tuning["runs"])
            for trial in tuning["scores"]:
                assert set(trial["settings"]) == {"optimizer.lr", "optimizer.weight_decay"}
                assert 1e-4 <= trial["settings"]["optimizer.lr"] <= 1e-1
                for score in trial["validation"]:
                    run = runs[next(tried)]
                    assert run["settings"] == trial["settings"]
                    assert run["metrics"]["validation"]["accuracy"] == score
                    assert run["metrics"]["test"] is None
        assert len({arm["tuning"]["trials"] for arm in arms(made)}) == 1

    def test_arms_begin_with_the_same_settings_and_then_part(self, made: Path) -> None:
        transfer, scratch = ([t["settings"] for t in a["tuning"]["scores"]] for a in arms(made))
        assert transfer[0]["optimizer.lr"] == 0.01  # its own
        assert transfer[:2] == scratch[:2]  # a third is drawn at random
        assert len({t["optimizer.lr"] for t in transfer}) > 4

    def test_the_best_trial_that_was_not_stopped_serves_all_replicates(self, made: Path) -> None:
        runs = read(made)
        for arm in arms(made):
            whole = [t for t in arm["tuning"]["scores"] if len(t["pruned"]) < 2]
            best = max(sum(t["validation"]) for t in whole)
            (chosen,) = (t for t in whole if t["settings"] == arm["tuning"]["best"])
            assert sum(chosen["validation"]) == best
            assert {json.dumps(runs[run["run_id"]]["settings"]) for run in arm["runs"]} == {
                json.dumps(arm["tuning"]["best"])
            }

    def test_what_was_stopped_is_counted_and_was_worse(self, made: Path) -> None:
        runs, stopped = read(made), 0
        for arm in arms(made):
            tried = [runs[run] for run in arm["tuning"]["runs"]]
            pruned = [run for run in tried if run["pruned"]]
            assert arm["tuning"]["pruned"] == len(pruned)
            stopped += len(pruned)
            for run in pruned:
                first = [r["curve"] for r in tried[:8] if r["seed"] == run["seed"]]
                index = len(run["curve"]) - 1
                earlier = sorted(curve[index]["validation_accuracy"] for curve in first)
                best = max(point["validation_accuracy"] for point in run["curve"])
                assert best == run["pruned"]["best"] < sum(earlier[1:3]) / 2
                assert run["pruned"]["below"] == sum(earlier[1:3]) / 2
                assert run["pruned"]["step"] == run["curve"][-1]["step"] < run["budget_steps"]
                assert run["selected_step"] == run["pruned"]["step"]
                assert run["curve"][-1]["validation_accuracy"] == pytest.approx(
                    run["metrics"]["validation"]["accuracy"]
                )
            assert not any(run["pruned"] for run in tried[:8])  # nobody was there to compare with
        assert stopped

    def test_verdicts_count_the_trials(self, made: Path) -> None:
        (verdict,) = json.loads((made / "verdicts.json").read_text())["verdicts"]
        assert verdict["trials"] == {"transfer": 16, "scratch": 16}
        assert verdict["reason"] not in ("unequal_trials", "not_tuned")


def test_asked_for_again_it_only_judges(made: Path, place: Path, cli: Any) -> None:
    shutil.copytree(made.parents[1], place, dirs_exist_ok=True)
    copy = place / "outputs/searched"
    before = {path: path.read_bytes() for path in copy.glob("runs/*/*") if path.is_file()}
    kept = [(copy / name).read_bytes() for name in ("tuning.journal", "study.json")]
    assert cli("run", "experiment=searched").code == 0
    assert {p: p.read_bytes() for p in copy.glob("runs/*/*") if p.is_file()} == before
    assert [(copy / name).read_bytes() for name in ("tuning.journal", "study.json")] == kept


@pytest.mark.timeout(1600)
@pytest.mark.parametrize(
    ("launcher", "counts"),
    [("basic", (3, 22)), ("joblib", (12,))],  # in the first batch and in the second
)
def test_a_driver_that_is_killed_while_it_tunes_loses_and_repeats_nothing(
    launcher: str, counts: tuple[int, ...], made: Path, place: Path
) -> None:
    declare(place)
    folder = place / "outputs/searched"
    line = [PROGRAM, "run", "experiment=searched", f"hydra/launcher={launcher}"]
    line += ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
    written: dict[Path, int] = {}
    for count in counts:
        process = subprocess.Popen(
            line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        _wait(lambda n=count: len(list(folder.glob("runs/*/run.json"))) >= n, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert written.items() <= _times(folder).items(), "what was done was done again"
        written = _times(folder)
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert written.items() <= _times(folder).items(), "what was done was done again"
    assert [arm["tuning"] for arm in arms(folder)] == [arm["tuning"] for arm in arms(made)]
    ours, theirs = read(folder), read(made)
    assert {k: lasting(v) for k, v in ours.items()} == {k: lasting(v) for k, v in theirs.items()}


def test_a_journal_that_was_lost_is_written_again(made: Path, place: Path, cli: Any) -> None:
    shutil.copytree(made.parents[1], place, dirs_exist_ok=True)
    copy = place / "outputs/searched"
    runs = _times(copy)
    (copy / "tuning.journal").unlink()
    assert cli("run", "experiment=searched").code == 0
    assert _times(copy) == runs
    assert arms(copy) == arms(made)


def test_a_dry_run_counts_the_trials_and_makes_nothing(cli: Any, place: Path) -> None:
    declare(place)
    result = cli("run", "experiment=searched", "--dry-run")
    assert result.code == 0, result.err
    assert result.out.count(" 16 ") == 2  # tuning runs of either arm
    assert not (place / "outputs").exists()


TWO = STUDY.replace("  arms: {{fine_tune: [source=glyphs, source.dataset.per_class=12,\n"
                    "    source.pretrain.budget.steps=4, strategy=fine_tune]}}",
                    "  arms: {{scratch: [source=none, strategy=scratch]}}")  # fmt: skip


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="gloo is missing")
def test_ranks_of_every_trial_read_one_configuration(cli: Any, place: Path) -> None:
    declare(place, tune="{trials: 2, seeds: 1, sampler: random}", text=TWO)
    result = cli("run", "experiment=searched", "trainer.devices=2")
    assert result.code == 0, result.err
    runs = read(place / "outputs/searched")
    assert len(runs) == 4  # two trials, two replicates
    assert (
        len({runs[run]["lr"] for run in arms(place / "outputs/searched")[0]["tuning"]["runs"]}) == 2
    )
    hashes = set()
    for run, record in runs.items():
        logs = sorted((place / "outputs/searched/runs" / run / "log").glob("rank*.log"))
        told = [_told(log) for log in logs]
        assert record["world_size"] == 2
        assert [line.partition(":")[0] for line in told] == [
            f"rank {rank} of 2, run {run}" for rank in (0, 1)
        ]
        (own,) = {line.rpartition(" ")[2] for line in told}
        hashes.add(own)
    assert len(hashes) == 4


FOREIGN = """
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

ConfigStore.instance().store(
    group="hydra/sweeper", name="foreign",
    node={"_target_": "hydra_plugins.foreign.sweeper.Foreign"}, provider="test",
)


class Foreign(Sweeper):
    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.config = config

    def sweep(self, arguments):
        for number, lr in enumerate(("0.011", "0.023")):
            (job,) = self.launcher.launch(
                [[*arguments, f"optimizer.lr={lr}"]], initial_job_idx=number
            )
            print("score", float(job.return_value))
"""


@pytest.fixture
def foreign(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweeper of others, found as theirs are: by hydra_plugins on the path."""
    (place / "hydra_plugins/foreign").mkdir(parents=True)
    (place / "hydra_plugins/foreign/__init__.py").touch()
    (place / "hydra_plugins/foreign/sweeper.py").write_text(FOREIGN)
    path = [str(place), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))


@pytest.mark.usefixtures("foreign")
@pytest.mark.skipif(not distributed.is_gloo_available(), reason="gloo is missing")
def test_ranks_read_one_configuration_under_a_sweeper_that_is_not_ours(
    program: Any, place: Path, overrides: Callable[..., tuple[str, ...]]
) -> None:
    chosen = overrides("source=none", "strategy=scratch", "name=foreign", "target.shots=5")
    plain = [text for text in chosen if "optimizer.lr" not in text]
    result = program(
        "run", "-m", "hydra/sweeper=foreign", "hydra.sweep.dir=hydra", "trainer.devices=2", *plain
    )
    runs = read(place / "outputs/foreign")
    assert {record["lr"] for record in runs.values()} == {0.011, 0.023}, result.err
    scores = [float(t.partition(" ")[2]) for t in result.out.splitlines() if t.startswith("score ")]
    by_rate = sorted(runs.values(), key=lambda record: record["lr"])
    assert scores == [record["metrics"]["validation"]["accuracy"] for record in by_rate]
    for run in runs:
        told = [_told(log) for log in (place / "outputs/foreign/runs" / run).glob("log/rank*.log")]
        assert len(told) == 2
        assert len({line.rpartition(" ")[2] for line in told}) == 1


@pytest.mark.usefixtures("foreign")
def test_what_a_user_can_mend_is_told_under_a_foreign_sweeper(
    program: Any, overrides: Callable[..., tuple[str, ...]]
) -> None:
    result = program(
        "run", "-m", "hydra/sweeper=foreign", "hydra.sweep.dir=hydra",
        *overrides("loss.class_weights=[1.0,2.0]"),
    )  # fmt: skip
    assert result.code == 2, result.err
    assert "expected 10 positive numbers" in result.lines[-1]
    assert "Traceback" not in result.err


def _told(log: Path) -> str:
    return next(line for line in log.read_text().splitlines() if line.startswith("rank "))


def _times(folder: Path) -> dict[Path, int]:
    """When each record in a study's folder was written."""
    return {path.parent.relative_to(folder): path.stat().st_mtime_ns
            for path in folder.glob("runs/*/run.json")}  # fmt: skip


def _wait(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + 400
    while not true():
        assert time.monotonic() < ends, "waited in vain"
        assert process.poll() is None, "ended too soon"
        time.sleep(0.05)
