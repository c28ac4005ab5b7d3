"""What a task still has to do follows from the run directories."""

from pathlib import Path

import pytest

from transferlab.records import recorded, sha256_record, write_json
from transferlab.slurm.job import _failed, _record_death
from transferlab.slurm.tasks import Task, own_task, write_tasks


def test_pending_are_runs_without_a_record_or_with_one_to_replace(tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("none", "half", "done", "failed", "again", "anew")]
    for run in runs:
        run.mkdir()
    (tmp_path / "half" / "run.json").write_text('{"status": "do')
    write_json(tmp_path / "done" / "run.json", {"status": "done"})
    for name in ("failed", "again", "anew"):
        write_json(tmp_path / name / "run.json", {"status": "failed", "reason": "2"})
    again = {
        "again": sha256_record({"status": "failed", "reason": "2"}),
        "anew": sha256_record({"status": "failed", "reason": "1"}),  # it failed once more since
    }
    task = Task([str(run) for run in runs], again)
    assert [Path(run).name for run in task.pending()] == ["none", "half", "again"]
    assert task.without({str(runs[0])}).runs == task.runs[1:]


def test_a_process_finds_its_own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [Task(["a", "b"]), Task(["c"], {"c": "hash"})]
    path = write_tasks(tmp_path, tasks)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert own_task(path) == tasks[1]
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    assert own_task(path) == tasks[0]


@pytest.mark.parametrize(
    ("purpose", "status", "failed"),
    [
        ("single", "done", False), ("single", "diverged", True), ("source", "diverged", True),
        ("replicate", "diverged", False), ("tune", "failed", True),
    ],
)  # fmt: skip
def test_what_makes_a_task_fail(purpose: str, status: str, failed: bool, tmp_path: Path) -> None:
    assert _failed(tmp_path), "no record at all"
    write_json(tmp_path / "run.json", {"purpose": purpose, "status": status})
    assert _failed(tmp_path) is failed


@pytest.mark.parametrize(("code", "how"), [(-9, "killed by signal 9"), (3, "exit code 3")])
def test_the_death_of_a_worker_is_recorded(code: int, how: str, tmp_path: Path) -> None:
    names = {"source": "glyphs", "target": "digits", "strategy": "lp_ft"}
    named = [f"{key}: {{name: {value}}}" for key, value in names.items()]
    text = "\n".join(["purpose: replicate", "seed: 4", *named])
    (tmp_path / "config.yaml").write_text(text)
    _record_death(tmp_path, code)
    record = recorded(tmp_path)
    assert record is not None
    assert how in record["reason"]
    assert (record["status"], record["seed"], record["target"]) == ("failed", 4, "digits")
