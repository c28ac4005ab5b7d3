"""Two gloo processes train what one does: the same weights, from different images."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import distributed

from transferlab.config import config_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1600),
    pytest.mark.xdist_group("ranks"),  # one job serves them all
    pytest.mark.skipif(not distributed.is_gloo_available(), reason="gloo is missing"),
]
WORKER = Path(__file__).with_name("ranks_worker.py")
NO_FIT = {"auto_depth": "makes several fits", "greedy_soup": "trains nothing"}
STRATEGIES = sorted(path.stem for path in (config_folder() / "strategy").glob("[!_]*.yaml"))
STRATEGIES = [name for name in STRATEGIES if name not in NO_FIT]
BASE = (
    "trainer=cpu", "trainer.threads=1", "trainer.validations=4", "trainer.log_every=4",
    "budget.steps=8", "batch_size=12", "target.shots=1", "target.max_validation=21",
    "optimizer.lr=1e-3", "checkpoint.every_minutes=null", "trainer.precision=32-true",
)  # fmt: skip
EXACT = ("backbone.name=test_vit", "backbone.image_size=32", "trainer.precision=64-true")
NORMS = ("backbone=test_resnet", "backbone.image_size=32")
RANKS = ("trainer.devices=2", "trainer.replica_check=1")
UNEQUAL = {"bss": "singular values are those of a rank's own features, not of the whole batch's"}
"""Strategies whose loss is no mean over images, or that draw numbers per rank: and why."""
BY_SGD = {"l2_sp"}
"""Strategies with a pull so weak that AdamW blows rounding errors up to whole steps: a key's bias
has no gradient but that, and each step multiplies it by alpha * lr / eps, here a thousand."""
TOLERANCE = 1e-9
LIMIT_SECONDS = 1500
"""Far more than the whole job takes; a rank that waits for ever must not hold up the suite."""


def cases() -> list[dict[str, Any]]:
    """Everything that the two processes fit, in the order in which they do."""
    found: list[dict[str, Any]] = []
    for name in STRATEGIES:
        chosen = [*BASE, f"strategy={name}"]
        sgd = ["optimizer=sgd", "optimizer.lr=0.1"] if name in BY_SGD else []
        found.append({"name": f"exact-{name}", "overrides": [*chosen, *EXACT, *sgd]})
        found.append({"name": f"norms-{name}", "overrides": [*chosen, *NORMS]})
    weighted = [*BASE, *EXACT, "strategy=fine_tune", "loss.class_weights=[1,2,3,4,5,6,7,8,9,30]"]
    gradual = [*BASE, *EXACT, "strategy=gradual_unfreezing"]
    found += [
        {"name": "weighted", "overrides": weighted},
        {"name": "accumulated", "overrides": [*weighted, "trainer.accumulate=2"]},
        {"name": "sgd", "overrides": [*gradual, "optimizer=sgd", "optimizer.lr=0.1"]},
        {"name": "unsynced", "overrides": [*BASE, *EXACT, "strategy=fine_tune"], "unsynced": True},
        {"name": "unwrapped", "overrides": [*gradual], "unwrapped": True},
        {"name": "unguarded", "overrides": [*BASE, *EXACT], "unsynced": True},
    ]
    for case in found:
        case["overrides"] = [*case["overrides"], *RANKS]
    found[-1]["overrides"][-1] = "trainer.replica_check=null"
    return found


CASES = {case["name"]: case for case in cases()}


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ranks_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """Fit all cases with two processes; returns the folder of what they left."""
    out = tmp_path_factory.mktemp("ranks")
    (out / "request.json").write_text(json.dumps(list(CASES.values())))
    environment = os.environ | {
        "TRANSFERLAB_CACHE": str(shared_cache), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=localhost",
        "--nproc-per-node=2", str(WORKER), str(out / "request.json"), str(out),
    ]  # fmt: skip
    with (out / "log.txt").open("wb") as log:
        agent = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log
        )
        try:
            code = agent.wait(LIMIT_SECONDS)
        finally:
            assert agent.stdin is not None
            agent.stdin.close()  # ends the ranks, should they still be there
    assert code == 0, (out / "log.txt").read_text()[-4000:]
    return out


Kept = Callable[[str], dict[str, Any]]


@pytest.fixture
def kept(job: Path) -> Kept:
    def load(name: str) -> dict[str, Any]:
        told = job / f"{name}.rank0.txt"
        assert not told.exists(), told.read_text()
        found: dict[str, Any] = torch.load(job / f"{name}.pt", weights_only=False)
        return found

    return load


@pytest.fixture
def alone(worker: ModuleType, tmp_path: Path) -> Callable[..., Any]:
    """Fit a case with one process."""

    def fit(name: str, *more: str) -> Any:
        changed = ["trainer.devices=1" if o == RANKS[0] else o for o in CASES[name]["overrides"]]
        return worker.fitted({"overrides": [*changed, *more]}, tmp_path)[1]

    return fit


def gap(
    one: dict[str, dict[str, torch.Tensor]], other: dict[str, dict[str, torch.Tensor]]
) -> float:
    assert one.keys() == other.keys()
    return max(
        float((one[phase][key].double() - other[phase][key].double()).abs().max())
        for phase in one
        for key in one[phase]
    )


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("norms-")])
def test_replicas_are_one_model(name: str, kept: Kept) -> None:
    found = kept(name)
    assert found["apart"] == []
    assert found["scores"][0] == found["scores"][1]
    assert found["scores"][0] is not None


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("exact-")])
def test_two_processes_train_what_one_does(
    name: str, kept: Kept, alone: Callable[..., Any]
) -> None:
    strategy = name.partition("-")[2]
    if strategy in UNEQUAL:
        assert kept(name)["apart"] == []
        return
    found, single = kept(name), alone(name)
    assert found["apart"] == []
    assert gap(found["states"], single.states) < TOLERANCE
    start, end = found["states"]["step 0"], found["states"]["end"]
    assert max(float((start[k] - end[k]).abs().max()) for k in start) > 1e-4, "nothing trained"


@pytest.mark.parametrize("name", ["weighted", "accumulated", "sgd"])
def test_weights_accumulation_and_momentum_too(
    name: str, kept: Kept, alone: Callable[..., Any]
) -> None:
    single = alone(name, *(["trainer.accumulate=1"] if name == "accumulated" else []))
    assert gap(kept(name)["states"], single.states) < TOLERANCE


def test_ranks_see_different_images_and_together_the_whole_batch(
    kept: Kept, alone: Callable[..., Any]
) -> None:
    first, second = kept("exact-fine_tune")["shares"]
    whole = alone("exact-fine_tune").items
    assert len(first) == len(second) == len(whole) == 8
    for one, other, batch in zip(first, second, whole, strict=True):
        assert len(one) == len(other) == 6
        assert sorted(chain(one, other)) == sorted(batch)
        assert one != other


def test_gradual_unfreezing_thaws_in_several_phases(kept: Kept) -> None:
    assert len(kept("exact-gradual_unfreezing")["states"]) > 3


@pytest.mark.parametrize(("name", "step"), [("unsynced", 1), ("unwrapped", 2)])
def test_the_guard_sees_replicas_drift_apart(name: str, step: int, job: Path) -> None:
    told = [(job / f"{name}.rank{rank}.txt").read_text() for rank in (0, 1)]
    assert told[0] == told[1], "all ranks end alike"
    assert told[0].startswith(f"replicas differ after optimiser step {step}: model.")


def test_without_the_guard_nobody_would_have_noticed(kept: Kept) -> None:
    assert len(kept("unguarded")["apart"]) > 10


def test_collectives(job: Path) -> None:
    for told in json.loads((job / "collectives.json").read_text()):
        assert told["means"] == [0.5, 1.0]
        assert told["found"] == [5, 0, 1, 2, 3]
        assert told["lost"] == "evaluation lost 1 of 2 items"
