"""A declared study, whole: tuned alike, replicated, compared, interrupted and gone on with."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as parquet
import pytest

from transferlab.study.declaration import TUNING_SEED

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("study")]  # one study serves them all

STUDY = """# @package _global_
defaults:
  - override /target: digits
  - override /backbone: test_resnet
  - override /hydra/launcher: {launcher}
  - override /hydra/sweeper: study
name: tiny
batch_size: 8
budget: {{steps: {steps}}}
backbone: {{image_size: 16}}
target: {{shots: 5, max_validation: 40}}
trainer: {{accelerator: cpu, threads: 1, validations: 1}}
hydra:
  mode: MULTIRUN
  launcher: {settings}
study:
  arms:
    feature_extraction: [source=glyphs, {source}, strategy=feature_extraction]
    fine_tune: [source=glyphs, {source}, strategy=fine_tune]
  tune: {{grid: {{optimizer.lr: [0.01, 0.03]}}, seeds: 2, extend: 1}}
  seeds: 3
  looks: [3]
"""
# of the arms alone: scratch has no source
SMALL = "source.dataset.per_class=12, source.pretrain.budget.steps=4"


def declare(folder: Path, launcher: str = "basic", steps: int = 24) -> None:
    """Write the study into a working directory's own configuration folder."""
    path = folder / "conf/experiment/tiny.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = "{n_jobs: 2}" if launcher == "joblib" else "{}"
    text = STUDY.format(launcher=launcher, settings=settings, steps=steps, source=SMALL)
    path.write_text(text)


def read(folder: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in folder.glob("runs/*/run.json")]
    return {record["run_id"]: record for record in found}


def lasting(record: dict[str, Any]) -> dict[str, Any]:
    """Return what a run's record says about its result: no times, paths or machine."""
    dropped = ("cost", "environment", "log")
    return {key: value for key, value in record.items() if key not in dropped}


@pytest.fixture(scope="module")
def made(made_once: Callable[..., Path]) -> tuple[Path, dict[str, Any]]:
    """The study, made once under the basic launcher, with its ``study.json``."""
    output = made_once(declare, "tiny")
    return output, json.loads((output / "study.json").read_text())


class TestRecords:
    """What a finished study says of itself."""

    def test_study_json_names_every_run_of_every_arm(self, made) -> None:
        folder, study = made
        runs = read(folder)
        assert study["tuned"] is True
        assert study["seeds"] == [0, 1, 2]
        (cell,) = study["cells"]
        planned = [run for arm in cell["arms"] for run in arm["runs"]]
        tuned = [run for arm in cell["arms"] for run in arm["tuning"]["runs"]]
        assert {run["run_id"] for run in planned} | set(tuned) == set(runs)
        assert {run["status"] for run in runs.values()} <= {"done", "diverged"}
        for run in planned:
            assert runs[run["run_id"]]["seed"] == run["seed"]

    def test_scratch_joins_once_and_the_frozen_arm_has_a_control(self, made) -> None:
        arms = made[1]["cells"][0]["arms"]
        roles = {arm["id"]: arm["role"] for arm in arms}
        assert len(roles) == len(arms)
        assert list(roles.values()).count("scratch") == 1
        assert roles["feature_extraction from random init"] == "control"
        by_id = {arm["id"]: arm for arm in arms}
        frozen = by_id["feature_extraction"]["control"]
        assert frozen == "feature_extraction from random init"
        assert by_id[frozen]["source"] == "none"

    def test_every_arm_is_tuned_alike(self, made) -> None:
        tunings = [arm["tuning"] for arm in made[1]["cells"][0]["arms"]]
        assert len({json.dumps(tuning["grid"]) for tuning in tunings}) == 1
        assert len({tuning["trials"] for tuning in tunings}) == 1
        points = len(tunings[0]["grid"]["optimizer.lr"])
        assert points > 2  # of two rates one is an end: the grid grew, for all arms
        for tuning in tunings:
            assert len(tuning["scores"]) == points
            assert tuning["trials"] == points * len(tuning["seeds"])
            assert all(len(score["validation"]) == 2 for score in tuning["scores"])

    def test_tuning_seeds_enter_no_verdict(self, made) -> None:
        folder, study = made
        runs = read(folder)
        for arm in study["cells"][0]["arms"]:
            seeds = {runs[run]["seed"] for run in arm["tuning"]["runs"]}
            assert seeds == set(arm["tuning"]["seeds"])
            assert min(seeds) >= TUNING_SEED
            assert not seeds & set(study["seeds"])

    def test_tuning_reads_no_test_image(self, made) -> None:
        folder = made[0]
        seen = {"tune": set(), "replicate": set()}
        for run_id, record in read(folder).items():
            run = folder / "runs" / run_id
            table = parquet.read_table(run / "predictions.parquet", columns=["split"])
            seen[record["purpose"]] |= set(table["split"].to_pylist())
            opened = (run / "ledger.jsonl").is_file()
            assert opened == (record["purpose"] == "replicate")
            assert (record["metrics"]["test"] is None) == (record["purpose"] == "tune")
        assert seen == {"tune": {"validation"}, "replicate": {"validation", "test"}}

    def test_a_rate_at_the_grid_s_end_decides_nothing(self, made) -> None:
        folder, study = made
        edges = {arm["id"]: arm["tuning"]["edges"] for arm in study["cells"][0]["arms"]}
        found = json.loads((folder / "verdicts.json").read_text())["verdicts"]
        assert {v["arm"] for v in found} == {"feature_extraction", "fine_tune"}
        for verdict in found:
            assert len(verdict["ci95"]) == 2
            assert verdict["n_pairs"] == 3
            if edges[verdict["arm"]] or edges["scratch"]:
                assert "rate_at_edge" in verdict["flags"]
                assert verdict["verdict"] not in ("positive", "negative")

    def test_all_arms_share_test_items_and_preprocessing(self, made) -> None:
        runs = read(made[0]).values()
        for key in ("split_sha256", "test_ids_sha256", "preprocessing_sha256", "budget_steps"):
            assert len({run[key] for run in runs}) == 1


class TestAgain:
    """A study asked for again skips what is done and ends as it would have."""

    @pytest.fixture
    def copy(self, made, place: Path) -> Path:
        """A copy of the finished study in the working directory."""
        shutil.copytree(made[0].parents[1], place, dirs_exist_ok=True)
        return place / "outputs/tiny"

    def test_a_finished_study_is_only_judged_again(self, cli, copy: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in copy.glob("runs/*/*")}
        verdicts = (copy / "verdicts.json").read_bytes()
        report = (copy / "report.html").read_bytes()
        assert cli("run", "experiment=tiny").code == 0
        assert {path: path.stat().st_mtime_ns for path in copy.glob("runs/*/*")} == before
        assert (copy / "verdicts.json").read_bytes() == verdicts
        assert (copy / "report.html").read_bytes() == report

    def test_a_study_that_lost_runs_goes_on_to_the_same_verdicts(self, cli, copy: Path) -> None:
        whole = {run: lasting(record) for run, record in read(copy).items()}
        verdicts = json.loads((copy / "verdicts.json").read_text())
        for number, path in enumerate(sorted(copy.glob("runs/*/run.json"))):
            if number % 4 == 0:
                path.unlink()
            if number % 8 == 1:
                path.write_text('{"status": "do')  # cut short by a power failure
        assert cli("run", "experiment=tiny").code == 0
        assert {run: lasting(record) for run, record in read(copy).items()} == whole
        assert _timeless(json.loads((copy / "verdicts.json").read_text())) == _timeless(verdicts)

    def test_report_judges_again_without_training(self, cli, copy: Path) -> None:
        verdicts = (copy / "verdicts.json").read_bytes()
        for name in ("verdicts.json", "verdicts.csv", "runs.csv", "report.html"):
            (copy / name).unlink()
        result = cli("report", copy)
        assert (result.code, result.err) == (0, "")
        assert (copy / "verdicts.json").read_bytes() == verdicts
        assert (copy / "runs.csv").is_file()
        assert (copy / "verdicts.csv").is_file()

    def test_too_many_failed_runs_exit_1_and_keep_the_others(
        self, cli, copy: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs = read(copy)
        lost = [run for run, r in runs.items() if r["purpose"] == "replicate" and r["seed"] > 0]
        for run in lost:
            (copy / "runs" / run / "run.json").unlink()

        def fault(*_: object) -> None:
            raise RuntimeError("the disk is on fire")

        with monkeypatch.context() as patched:
            patched.setattr("transferlab.run.fit", fault)
            result = cli("run", "experiment=tiny")
        assert result.code == 1
        assert "the disk is on fire" in result.lines[-1]
        assert "33%" in result.lines[-1]
        after = read(copy)
        kept = set(runs) - set(lost)
        assert {run: after[run] for run in kept} == {run: runs[run] for run in kept}
        assert {after[run]["status"] for run in lost} == {"failed"}
        assert cli("run", "experiment=tiny").code == 1  # failed runs are left as they are
        assert read(copy) == after
        assert cli("run", "experiment=tiny", "retry=failed").code == 0
        assert {record["status"] for record in read(copy).values()} <= {"done", "diverged"}

    def test_a_few_failed_runs_are_tolerated(
        self, cli, copy: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arms = json.loads((copy / "study.json").read_text())["cells"][0]["arms"]
        (frozen,) = (arm for arm in arms if arm["id"] == "feature_extraction")
        (copy / "runs" / frozen["runs"][2]["run_id"] / "run.json").unlink()

        def fault(*_: object) -> None:
            raise RuntimeError("the disk is on fire")

        monkeypatch.setattr("transferlab.run.fit", fault)
        assert cli("run", "experiment=tiny").code == 0  # 8 of 9 pairs


def test_dry_run_of_a_study_makes_nothing(cli, place: Path) -> None:
    declare(place)
    result = cli("run", "experiment=tiny", "--dry-run")
    assert result.code == 0
    assert "a true difference of" in result.out
    assert not (place / "outputs").exists()


def _timeless(node: Any) -> Any:
    """Leave out what a verdict says about seconds."""
    if isinstance(node, dict):
        return {
            k: _timeless(v) for k, v in node.items() if k not in ("cost", "card_hash", "sentence")
        }
    return [_timeless(value) for value in node] if isinstance(node, list) else node


def test_joblib_makes_the_same_records_as_basic(made, program, place: Path) -> None:
    declare(place, launcher="joblib")
    result = program("run", "experiment=tiny")
    assert result.code == 0, result.err
    ours, theirs = read(place / "outputs/tiny"), read(made[0])
    assert {k: lasting(v) for k, v in ours.items()} == {k: lasting(v) for k, v in theirs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(
    launcher: str, cli, place: Path, made, start: Callable[..., subprocess.Popen[str]]
) -> None:
    declare(place, launcher=launcher)
    process = start("run", "experiment=tiny")
    folder = place / "outputs/tiny"
    _wait(lambda: len(list(folder.glob("runs/*/run.json"))) >= 4, process)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    last = err.strip().splitlines()[-1]
    assert "interrupted" in last
    assert "the same command goes on" in last
    assert "Traceback" not in err
    _wait(lambda: not any(p.is_running() and p.status() != "zombie" for p in family), None)
    done = read(folder)
    assert len(done) >= 4
    declare(place)
    assert cli("run", "experiment=tiny").code == 0
    after = read(folder)
    finished = {run for run, record in done.items() if record["status"] in ("done", "diverged")}
    assert {run: after[run] for run in finished} == {run: done[run] for run in finished}
    whole = {run: lasting(record) for run, record in read(made[0]).items()}
    assert {run: lasting(record) for run, record in after.items()} == whole


@pytest.fixture
def start(place: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the program in a process group of its own; what is left of it is ended after."""
    started: list[subprocess.Popen[str]] = []
    # tests in the background ignore interrupts, and so would what they start
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def call(*arguments: str) -> subprocess.Popen[str]:
        program = Path(sys.executable).parent / "transferlab"
        started.append(
            subprocess.Popen(
                [program, *arguments],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield call
    signal.signal(signal.SIGINT, before)
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(true: Callable[[], bool], process: subprocess.Popen[str] | None) -> None:
    ends = time.monotonic() + 240
    while not true():
        assert time.monotonic() < ends, "waited in vain"
        assert process is None or process.poll() is None, "ended too soon"
        time.sleep(0.05)
