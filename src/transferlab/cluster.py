"""Several machines that make one run: who is here, and how their launchers find each other."""

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from json import dumps, loads

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from transferlab.errors import RunError, UserError

PORTS = (20_000, 28_000)
"""Where the first node listens: one of these by the job's number, the same on all nodes."""
ARRIVAL = timedelta(minutes=10)
"""How long nodes wait for each other."""
LEAVING = timedelta(seconds=40)
"""How long the first node waits for the others' ranks to end."""


@dataclass(frozen=True)
class Meeting:
    """What the launcher of one node needs to know of one run's ranks.

    Attributes:
        directory: of the run.
        devices: ranks on each node.
        threads: of one rank, or None.
        nodes: how many there are.
        node: which of them this one is, from 0.
        address: of the first node, where its launcher listens.
        port: of the first node's launcher.
    """

    directory: str
    devices: int
    threads: int | None
    nodes: int = 1
    node: int = 0
    address: str = ""
    port: int = 0


@dataclass
class Cluster:
    """The nodes that this process belongs to.

    Attributes:
        elsewhere: runs are made by jobs on other machines, whose devices this one can't count.
    """

    elsewhere: bool = False

    def __post_init__(self) -> None:
        self._store: TCPStore | None = None
        self._calls = 0

    @property
    def nodes(self) -> int:
        """How many nodes this process's job has."""
        return int(os.environ.get("SLURM_NNODES", 1))

    @property
    def node(self) -> int:
        """Which of the job's nodes this one is, from 0."""
        return int(os.environ.get("SLURM_NODEID", 0))

    def open(self) -> TCPStore:
        """Begin to listen, as the first node; the others wait for it."""
        if self._store is None:
            self._store = TCPStore(
                first_address(), _port(), is_master=True, wait_for_workers=False, timeout=ARRIVAL
            )
        return self._store

    @contextmanager
    def calling(
        self, directory: str, devices: int, threads: int | None, nodes: int
    ) -> Iterator[Meeting]:
        """Call the other nodes to a run, as the first of them; wait until they have left it.

        Raises:
            RunError: this process does not run on as many nodes.
        """
        if nodes != self.nodes or self.node != 0:
            raise RunError(f"a run on {nodes} nodes was started on {self.nodes}")
        store = self.open()
        call, self._calls = self._calls, self._calls + 1
        meeting = Meeting(directory, devices, threads, nodes, 0, first_address(), _free_port())
        store.set(f"call{call}", dumps(asdict(meeting)))
        try:
            yield meeting
        finally:
            store.set(f"over{call}", "1")
            with suppress(RuntimeError):  # one that is gone can't say so
                store.wait([f"left{call}.{node}" for node in range(1, nodes)], LEAVING)

    def dismiss(self) -> None:
        """Send the other nodes home, as the first of them: there are no more runs."""
        store = self.open()
        store.set(f"call{self._calls}", dumps(None))
        with suppress(RuntimeError):
            store.wait([f"home{node}" for node in range(1, self.nodes)], LEAVING)

    def calls(self) -> Iterator[tuple[Meeting, "Call"]]:
        """Wait for the first node's calls, one after another, until it sends the others home.

        A first node that was started anew is found again, and begins to count anew.
        """
        while True:
            store = TCPStore(first_address(), _port(), is_master=False, timeout=ARRIVAL)
            number = 0
            try:
                while True:
                    store.wait([f"call{number}"], timedelta(days=30))
                    found = loads(store.get(f"call{number}"))
                    if found is None:
                        store.set(f"home{self.node}", "1")
                        return
                    call = Call(store, number, self.node)
                    yield Meeting(**(found | {"node": self.node})), call
                    store.set(f"left{number}.{self.node}", "1")
                    number += 1
            except RuntimeError:  # the connection is lost
                continue


@dataclass(frozen=True)
class Call:
    """One call of the first node, as another one sees it."""

    store: TCPStore
    number: int
    node: int

    def over(self) -> bool:
        """Say whether the first node has ended the run, or is gone."""
        try:
            return bool(self.store.check([f"over{self.number}"]))
        except RuntimeError:
            return True


def first_address() -> str:
    """Return where the job's first node is reached; names of nodes may not resolve.

    Raises:
        UserError: nothing in the environment tells.
    """
    given = os.environ.get("MASTER_ADDR") or os.environ.get("SLURM_LAUNCH_NODE_IPADDR")
    if given:
        return given
    nodes = os.environ.get("SLURM_JOB_NODELIST", "")
    with suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
        )
        return listed.stdout.split()[0]
    raise UserError(
        "the first node of this job is not known: export MASTER_ADDR in hydra.launcher.setup."
    )


def _port() -> int:
    low, high = PORTS
    number = int(re.sub(r"\D", "", os.environ.get("SLURM_JOB_ID", "")) or 0)
    return low + number % (high - low)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


cluster = Cluster()
"""This process's own."""
