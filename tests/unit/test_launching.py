"""What a failed launch comes to; real launches are in tests/e2e/test_launching.py."""

import json
import os
from pathlib import Path

import pytest
import torch

from transferlab import launching
from transferlab.cluster import Meeting
from transferlab.errors import RunError, UserError
from transferlab.launching import RankError, described, note_failure
from transferlab.module import DivergedError

AGENT = """
Failures:
  <NO_OTHER_FAILURES>
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-01-01_00:00:00
  host      : localhost
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 4711)
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "launch.log").write_text("nothing to tell")
    return tmp_path / "log"


def test_the_first_failure_counts(log: Path) -> None:
    note_failure(log.parent, 1, RuntimeError("out of luck\nand more"))
    note_failure(log.parent, 0, RuntimeError("connection closed by peer"))
    error = launching._failure(log)
    assert isinstance(error, RankError)
    assert str(error) == "RuntimeError: out of luck (rank 1)"
    assert error.log == log / "rank1.log"
    assert "and more" in json.loads((log / "rank1.failure.json").read_text())["traceback"]


@pytest.mark.parametrize("kind", [UserError, DivergedError])
def test_our_own_errors_come_back_as_they_were(kind: type[Exception], log: Path) -> None:
    note_failure(log.parent, 0, kind("mend this"))
    error = launching._failure(log)
    assert type(error) is kind
    assert str(error) == "mend this"


def test_a_rank_that_was_killed_is_the_cause_of_what_its_peers_say(log: Path) -> None:
    note_failure(log.parent, 0, RuntimeError("connection closed by peer"))
    (log / "launch.log").write_text(AGENT)
    assert str(launching._failure(log)) == "rank 1 was killed by signal 9"
    (log / "launch.log").write_text(AGENT.replace("-9", "-15"))  # the agent's own signal
    assert "connection closed" in str(launching._failure(log))


def test_a_killed_rank_is_the_cause_though_the_agent_saw_its_peer_first(log: Path) -> None:
    """Both had ended when the agent looked: it takes the first in order for the root cause."""
    note_failure(log.parent, 0, RuntimeError("connection closed by peer"))
    killed = AGENT.partition("[0]:")[2].replace("-9", "-11")
    peer = AGENT.replace("rank      : 1 (local_rank: 1)", "rank      : 0 (local_rank: 0)")
    peer = peer.replace("-9", "1 ").replace("  <NO_OTHER_FAILURES>", f"[1]:{killed}")
    (log / "launch.log").write_text(peer)
    assert str(launching._failure(log)) == "rank 1 was killed by signal 11"


def test_ranks_that_say_nothing_are_told_too(log: Path) -> None:
    error = launching._failure(log)
    assert isinstance(error, RankError)
    assert error.log == log / "launch.log"


def test_ranks_get_an_environment_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    outer = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "x",
             "MASTER_ADDR": "far", "MASTER_PORT": "1", "SLURM_JOB_ID": "5"}  # fmt: skip
    for key, value in outer.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 9)
    before = dict(os.environ)
    found = launching._environment(Meeting("run", 4, None))
    assert not set(found) & (set(outer) - {"SLURM_JOB_ID"})
    assert found["SLURM_JOB_ID"] == "5"
    assert found["OMP_NUM_THREADS"] == "2"
    assert launching._environment(Meeting("run", 4, 7))["OMP_NUM_THREADS"] == "7"
    assert launching._environment(Meeting("run", 16, None))["OMP_NUM_THREADS"] == "1"
    assert dict(os.environ) == before


def test_errors_are_described_in_a_line() -> None:
    assert described(UserError("mend this")) == "mend this"
    assert described(RunError("it drifted")) == "it drifted"
    assert described(ValueError("bad\nworse")) == "ValueError: bad"
    assert described(KeyError()) == "KeyError: "


def test_agents_of_one_machine_stay_on_it_and_those_of_several_meet_at_the_first() -> None:
    alone = Meeting("run", 2, None)
    assert "--standalone" in launching._command(alone)
    several = Meeting("run", 2, None, nodes=3, node=1, address="10.0.0.7", port=4711)
    command = launching._command(several)
    assert {"--nnodes=3", "--node-rank=1", "--master-addr=10.0.0.7", "--master-port=4711",
            "--nproc-per-node=2"} <= set(command)  # fmt: skip
    assert "GLOO_SOCKET_IFNAME" not in launching._environment(several)
