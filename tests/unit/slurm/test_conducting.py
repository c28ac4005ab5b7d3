"""Submitting within a site's limits and waiting, against programs that answer as SLURM's do."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from transferlab.records import read_json, write_json
from transferlab.slurm import site
from transferlab.slurm.conducting import conduct
from transferlab.slurm.settings import SlurmSettings

pytest.importorskip("submitit")

PROGRAM = """#!{python}
# Each squeue ends the oldest array that is left, having listed it; sbatch notes what it meets.
import json, os, sys
from pathlib import Path

here, name = Path(__file__).parent, Path(sys.argv[0]).name
study, counter = Path(os.environ["STUDY"]), here / "counter"

def active():
    notes = sorted(study.glob("slurm/[0-9]*.json"), key=lambda path: int(path.stem))
    for note in map(json.loads, map(Path.read_text, notes)):
        left = [i for i, task in enumerate(note["tasks"])
                if not all((Path(run) / "run.json").exists() for run in task["runs"])]
        if left:
            yield note, left

if name == "sbatch":
    number = int(counter.read_text()) + 1 if counter.exists() else 1
    counter.write_text(str(number))
    met = sum(len(left) for _, left in active())
    text = Path(sys.argv[-1]).read_text()
    with (here / "submitted").open("a") as stream:
        stream.write(json.dumps({{"met": met, "text": text}}) + "\\n")
    print(f"Submitted batch job {{number}}")
elif name == "squeue":
    print("900_1|None|a job | of one's own")
    found = list(active())
    for note, left in found:
        for task in left:
            print(f"{{note['job']}}_{{task}}|ReqNodeNotAvail, UnavailableNodes:n1|{{note['name']}}")
    if found:
        for task in found[0][0]["tasks"]:
            for run in task["runs"]:
                (Path(run) / "run.json").write_text('{{"status": "done"}}')
elif name == "scontrol":
    print("MaxArraySize            = 4")
elif name == "sinfo":
    print("low*|infinite|2|4")
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study's folder, and a cluster of one's own on the path."""
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "squeue", "scontrol", "sinfo", "srun"):
        program = tmp_path / "bin" / name
        program.write_text(PROGRAM.format(python=sys.executable))
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "study"
    folder.mkdir()
    monkeypatch.setenv("STUDY", str(folder))
    monkeypatch.setattr(site, "CONFIRM_SECONDS", 0)
    return folder


@pytest.fixture
def requests(study: Path) -> Callable[[int], list[Path]]:
    """Ask for so many runs, each in a job of its own."""

    def make(count: int) -> list[Path]:
        paths = []
        for number in range(count):
            run = study / "runs" / f"r{number}"
            run.mkdir(parents=True)
            (run / "config.yaml").write_text(
                "trainer: {num_nodes: 1, devices: 1, accelerator: cpu, workers: 0}\n"
            )
            write_json(study / f"request{number}.json", {"runs": [str(run)]})
            paths.append(study / f"request{number}.json")
        return paths

    return make


def arrays(study: Path) -> list[dict[str, object]]:
    return [
        read_json(path)
        for path in sorted(study.glob("slurm/[0-9]*.json"), key=lambda path: int(path.stem))
    ]


def met(study: Path) -> list[int]:
    """How many tasks there were at each submission."""
    lines = (study.parent / "bin" / "submitted").read_text().splitlines()
    return [json.loads(line)["met"] for line in lines]


@pytest.mark.parametrize(
    ("settings", "sizes", "most"),
    [
        ({}, [4, 4, 2], None),  # as many as the cluster takes in an array
        ({"max_array_size": 3}, [3, 3, 3, 1], None),
        ({"max_submit": 5}, [4, 4, 2], 5),
        ({"max_submit": 2}, [2, 2, 2, 2, 2], 2),
    ],
)
def test_limits_of_a_site_are_kept(
    settings: dict[str, int], sizes: list[int], most: int | None, study: Path, requests
) -> None:
    asked = requests(10)
    jobs = conduct(SlurmSettings(poll_seconds=0.01, **settings), asked, study)
    assert [len(array["tasks"]) for array in arrays(study)] == sizes
    assert jobs == [array["job"] for array in arrays(study)]
    runs = [run for array in arrays(study) for task in array["tasks"] for run in task["runs"]]
    assert sorted(runs) == sorted(str(path) for path in study.glob("runs/*"))
    if most is None:
        after = (study.parent / "bin" / "submitted").read_text()
        assert "--dependency=afterany:1" in after, "together they keep to array_parallelism"
    else:
        assert all(there + size <= most for there, size in zip(met(study), sizes, strict=True))


def test_why_a_job_waits_is_told_once(
    study: Path, requests, capsys: pytest.CaptureFixture[str]
) -> None:
    conduct(SlurmSettings(poll_seconds=0.01), requests(17), study)
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if " waits: " in line] == [
        f"transferlab: job {job} waits: ReqNodeNotAvail, UnavailableNodes:n1" for job in range(1, 6)
    ]


def test_jobs_of_others_may_have_any_name(study: Path) -> None:
    assert study.is_dir()
    assert site.active_jobs() == {"900_1": site.Active("a job | of one's own", "None")}


def test_what_a_job_holds_is_not_submitted_again(study: Path, requests) -> None:
    asked = requests(3)
    first = conduct(SlurmSettings(wait=False), asked[:2], study)
    second = conduct(SlurmSettings(poll_seconds=0.01), asked, study)
    assert (first, second) == (["1"], ["2"])
    assert [len(array["tasks"]) for array in arrays(study)] == [2, 1]
