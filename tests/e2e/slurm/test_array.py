"""One sweep in which everything happens that can happen to a job."""

from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), pytest.mark.xdist_group("slurm")]

STOPPED = {0: "requeue", 1: "notice", 2: "preemption"}
BROKEN = {3: "raise", 4: "exit", 5: "kill"}
REASONS = {
    3: "RuntimeError: out of luck",
    4: "ended with exit code 3",
    5: "was killed by signal 9",
}


def test_a_sweep_meets_requeue_notice_preemption_and_failures(slurm: Any) -> None:
    sweep = ("-m", f"seed={','.join(map(str, STOPPED | BROKEN))}", *slurm.line)
    slurm.here("run", *sweep, "name=whole")
    begun = {seed: slurm.order(seed, "wait") for seed in STOPPED}
    for seed, what in BROKEN.items():
        slurm.order(seed, what)
    places = ("partition=low", "runs_per_job=1", "array_parallelism=5")
    asked = [f"hydra.launcher.{place}" for place in places]
    driver = slurm.start("run", *sweep, "name=jobs", *slurm.launcher, *asked)
    slurm.until(lambda: all(path.exists() for path in begun.values()))
    (note,) = slurm.notes("jobs")
    job = note["job"]
    slurm.ask("scontrol", "requeue", f"{job}_0")
    slurm.notify(f"{job}_1")
    slurm.until(lambda: (slurm.release(), {0, 1} <= slurm.records("jobs").keys())[1])
    slurm.until(lambda: set(BROKEN) <= slurm.records("jobs").keys())
    assert 2 not in slurm.records("jobs")
    urgent = slurm.ask("sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive",
                       "--output=urgent", "--wrap=true").strip()  # fmt: skip
    slurm.until(lambda: slurm.states(urgent) == ["COMPLETED"])
    slurm.end(driver, code=1)  # half of the runs failed

    records = slurm.records("jobs")
    assert {seed: record["status"] for seed, record in records.items()} == {
        **dict.fromkeys(STOPPED, "done"),
        **dict.fromkeys(BROKEN, "failed"),
    }
    for seed, reason in REASONS.items():
        assert reason in records[seed]["reason"]
    for seed in STOPPED:
        assert records[seed]["resumed_at_steps"] == [slurm.step + 1], "at most one step lost"
        assert slurm.digests("jobs", seed) == slurm.digests("whole", seed)
    assert slurm.ended(job) == ["COMPLETED"] * 3 + ["FAILED"] * 3
    assert len(slurm.notes("jobs")) == 1

    held = [slurm.ask("sbatch", "--parsable", f"--dependency=afterok:{job}_{task}",
                      "--output=after", "--wrap=true").strip() for task in (0, 3)]  # fmt: skip
    slurm.until(lambda: slurm.states(held[0]) == ["COMPLETED"])
    slurm.until(lambda: "Never" in slurm.ask("squeue", f"--jobs={held[1]}", "--format=%r"))
    slurm.ask("scancel", held[1])
