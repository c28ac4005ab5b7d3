"""Start the ranks of a run on several devices, and end them: one agent, one process a device.

On several nodes there is an agent on each: the first node's process calls the others to a run.
The only launch path is ``torch.distributed.run`` from the run's own ``config.yaml``: no rank ever
sees a command line of ours. Files under ``log/`` tell what happened: ``launch.log`` is the
agent's (``launch-node<n>.log`` on a further node), ``rank<k>.log`` what rank k printed,
``rank<k>.failure.json`` why it failed, ``stopped.json`` that all stopped as they were asked to.
"""

import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from transferlab.cluster import Call, Meeting, cluster
from transferlab.errors import RunError, UserError
from transferlab.module import DivergedError
from transferlab.records import read_json, write_json
from transferlab.stopping import NOTICE, Stopped, stopping

POLL_SECONDS = 0.05
PATIENCE_SECONDS = 10.0
"""How long the agent may take to end once its ranks were told to."""
FOREIGN = re.compile(
    r"(TORCHELASTIC_.*|PET_.*|(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|GROUP_WORLD_SIZE|ROLE_NAME"
    r"|NODE_RANK|MASTER_(ADDR|PORT))"
)
"""What an outer launcher leaves in the environment; our ranks must not take it for theirs."""


class RankError(RunError):
    """A rank failed; the message is its own reason.

    Attributes:
        log: the file that holds the rank's output and traceback.
    """

    def __init__(self, reason: str, log: Path) -> None:
        super().__init__(reason)
        self.log = log


def launch(directory: Path, devices: int, threads: int | None, nodes: int = 1) -> None:
    """Make the run whose ``config.yaml`` lies in ``directory``; return when all ranks are done.

    The ranks end with this process, however it ends: they watch a pipe that only it holds open.

    Args:
        directory: of the run; rank 0 leaves ``run.json`` there.
        devices: how many ranks on each node.
        threads: of one rank; None shares this process's threads between them.
        nodes: how many; on all but this one :func:`attend` waits for the call.

    Raises:
        UserError, DivergedError: as a rank raised it.
        RankError: any other failure of a rank.
        Stopped: the ranks were asked to stop, and did.
    """
    log = directory / "log"
    log.mkdir(parents=True, exist_ok=True)
    for stale in (*log.glob("rank*.failure.json"), *log.glob("launch*.log"), _stopped(directory)):
        stale.unlink(missing_ok=True)
    if nodes == 1:
        code = _agent(Meeting(str(directory), devices, threads))
    else:
        with cluster.calling(str(directory), devices, threads, nodes) as meeting:
            code = _agent(meeting)
    if code != 0:
        raise _failure(log)
    if _stopped(directory).is_file():
        raise Stopped


def attend(meeting: Meeting, call: Call) -> None:
    """Start this node's ranks of a run that the first node leads; return when they have ended."""
    _agent(meeting, call)


def note_stop(directory: Path) -> None:
    """Leave word that the ranks stopped in order."""
    write_json(_stopped(directory), {"time": time.time()})


def _stopped(directory: Path) -> Path:
    return directory / "log" / "stopped.json"


def _agent(meeting: Meeting, call: Call | None = None) -> int:
    """Start this node's agent, see it through, and return its exit code."""
    log, told = Path(meeting.directory) / "log", False
    name = f"launch-node{meeting.node}.log" if meeting.node else "launch.log"
    with (log / name).open("wb") as output, _deaf():
        agent = subprocess.Popen(
            _command(meeting), env=_environment(meeting),
            stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends them
        )  # fmt: skip
    with _ended(agent):
        while agent.poll() is None and not any(log.glob("rank*.failure.json")):
            if stopping.asked and not told:
                _tell(agent, meeting.devices)
                told = True
            if call is not None and call.over():
                break
            time.sleep(POLL_SECONDS)
    return int(agent.returncode)


@contextmanager
def _deaf() -> Iterator[None]:
    """Have processes that are started inside not die of a scheduler's signals.

    They are sent to all processes of a job. Ranks are told on their pipe; to be killed in the
    middle of a step is what the notice is to prevent.
    """
    if not stopping.possible:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [NOTICE, signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _tell(agent: subprocess.Popen[bytes], ranks: int) -> None:
    """Ask the ranks to stop: each takes one byte from the pipe that they share."""
    assert agent.stdin is not None
    with suppress(BrokenPipeError):
        agent.stdin.write(b"." * ranks)
        agent.stdin.flush()


def note_failure(directory: Path, rank: int, error: BaseException) -> None:
    """Leave the reason of a rank's failure where :func:`launch` looks for it."""
    kinds = {"user": UserError, "diverged": DivergedError}
    note = {
        "rank": rank,
        "time": time.time(),
        "kind": next((name for name, kind in kinds.items() if isinstance(error, kind)), "error"),
        "reason": described(error),
        "traceback": "".join(traceback.format_exception(error)),
    }
    write_json(directory / "log" / f"rank{rank}.failure.json", note)


def described(error: BaseException) -> str:
    """Return an error in one line: ours as it stands, others under the name of their class."""
    if isinstance(error, UserError | RunError):
        return str(error)
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:300]


def _command(meeting: Meeting) -> list[str]:
    place = ["--standalone", "--local-addr=localhost"]
    if meeting.nodes > 1:
        place = [
            f"--nnodes={meeting.nodes}", f"--node-rank={meeting.node}",
            f"--master-addr={meeting.address}", f"--master-port={meeting.port}",
        ]  # fmt: skip
    return [
        sys.executable, "-m", "torch.distributed.run", *place,
        f"--nproc-per-node={meeting.devices}", "-m", "transferlab.rank", meeting.directory,
    ]  # fmt: skip


def _environment(meeting: Meeting) -> dict[str, str]:
    """Return the ranks' environment; this process's own is left as it is."""
    environment = {key: value for key, value in os.environ.items() if not FOREIGN.fullmatch(key)}
    threads = meeting.threads or max(torch.get_num_threads() // meeting.devices, 1)
    environment["OMP_NUM_THREADS"] = str(threads)
    environment["PYTHONSAFEPATH"] = "1"  # files in the working directory must not shadow modules
    if sys.platform == "linux" and meeting.nodes == 1:
        # one machine: no name has to be resolved, no network to be up
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return environment


@contextmanager
def _ended(agent: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave no rank and no agent behind, whatever ends the block."""
    try:
        yield
    finally:
        assert agent.stdin is not None
        agent.stdin.close()  # the ranks see it and end at once, also inside a collective
        try:
            agent.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            agent.kill()
            agent.wait()


def _failure(log: Path) -> Exception:
    """Return the error of the rank that failed first; the others only lost their peer."""
    killed = [(rank, -code) for rank, code in _exit_codes(log) if code < 0 and code != -15]
    if killed:
        rank, number = killed[-1]
        return RankError(f"rank {rank} was killed by signal {number}", log / "launch.log")
    notes: list[dict[str, Any]] = [read_json(path) for path in log.glob("rank*.failure.json")]
    if not notes:
        return RankError("the ranks did not start, or ended without a word", log / "launch.log")
    first = min(notes, key=lambda note: float(note["time"]))
    if first["kind"] == "user":
        return UserError(first["reason"])
    if first["kind"] == "diverged":
        return DivergedError(first["reason"])
    rank = first["rank"]
    return RankError(f"{first['reason']} (rank {rank})", log / f"rank{rank}.log")


def _exit_codes(log: Path) -> list[tuple[int, int]]:
    """Return the ranks that agents saw failing, with exit codes; an agent's root cause is its last.

    It is not always the cause: who was killed and who lost its peer may be found at one look.
    """
    texts = [path.read_text(errors="replace") for path in sorted(log.glob("launch*.log"))]
    seen = "\n".join(text.rpartition("\nFailures:\n")[2] for text in texts)
    entries = re.findall(r"^\s*rank\s*: (\d+).*\n\s*exitcode\s*: (-?\d+)", seen, re.MULTILINE)
    return [(int(rank), int(code)) for rank, code in entries]
