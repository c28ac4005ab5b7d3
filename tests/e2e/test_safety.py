"""What a run must not do, whoever wrote its configuration, its data or its files; and its faults.

A configuration that names ``os.system``, names with ``../`` and tags in them, secrets in the
environment, a disk that fills, memory that ends: each refused in one line or rendered harmless.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

Overrides = Callable[..., tuple[str, ...]]
PROGRAM = Path(sys.executable).parent / "transferlab"
TRAP = "{_target_:os.system,command:'touch went_off'}"
CANARY = "canary-4711-canary"
PARTS = '''
import os, pathlib, torch
from transferlab.callbacks.base import StrategyCallback
from transferlab.losses import CrossEntropy


class Leaks(StrategyCallback):
    """Fails with a message that holds a secret of the environment, as a web client's does."""

    def on_train_start(self, trainer, pl_module):
        token = os.environ["HF_TOKEN"]
        if "RANK" in os.environ:
            print("header", token)
        raise RuntimeError(f"401 for https://ann:{token}@host.org, header {token}")


class Fills(StrategyCallback):
    """Fills the disk of a folder before step 5, unless it was full before."""

    def __init__(self, folder: str, once: str) -> None:
        self.folder, self.once = pathlib.Path(folder), pathlib.Path(once)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 5 and not self.once.exists():
            self.once.touch()
            with (self.folder / "filler").open("wb") as stream:
                try:
                    while True:
                        stream.write(b"x" * 4096)
                        stream.flush()
                except OSError:
                    pass


class Greedy(CrossEntropy):
    """Asks for more memory than there is, as a large batch does."""

    def forward(self, logits, labels, *more):
        if torch.is_grad_enabled():
            torch.empty(2**46, dtype=torch.float32)
        return super().forward(logits, labels, *more)


class Exhausted(CrossEntropy):
    def forward(self, logits, labels, *more):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\\nMore.")


class Lost(CrossEntropy):
    """Not a number from the first step on."""

    def forward(self, logits, labels, *more):
        return super().forward(logits, labels, *more) * float("nan")
'''


@pytest.fixture
def parts(place: Path) -> str:
    """Classes of the user's beside the configuration; the override that allows them."""
    (place / "faulty.py").write_text(PARTS)
    return "allowed_packages=[faulty]"


def only(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("runs/*/run.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record | {"directory": path.parent}


def told(result: Any, code: int, *parts: str) -> None:
    assert (result.code, len(result.lines)) == (code, 1), result.err
    for part in parts:
        assert part in result.err


@pytest.mark.parametrize(
    "line",
    [
        ("run", "head._target_=os.system", "+head.command='touch went_off'"),
        ("run", "+tracker.x._target_=torch.os.system", "+tracker.x.command='touch went_off'"),
        ("run", "-m", "seed=0,1", "loss._target_=subprocess.Popen", "+loss.args='touch went_off'"),
        ("run", "source=composed", f"source.parts={{a:{{dataset:{TRAP}}},glyphs:{{}}}}"),
        ("recommend", "candidates.source=[glyphs]", "head._target_=os.system"),
        ("run", "experiment=evil"),
    ],
    ids=["head", "tracker", "grid", "part of a source", "recommend", "experiment"],
)  # fmt: skip
def test_a_configuration_that_names_the_system_is_refused(line, cli, place: Path) -> None:
    experiment = place / "conf" / "experiment" / "evil.yaml"
    experiment.parent.mkdir(parents=True)
    node = {"_target_": "os.system", "command": "touch went_off"}
    experiment.write_text("# @package _global_\n" + yaml.safe_dump({"loss": node}))
    told(cli(*line), 2, "_target_=", "standard library")
    assert not (place / "went_off").exists()
    assert not (place / "outputs").exists()


def test_a_run_of_somebody_s_can_allow_itself_nothing(
    cli, overrides: Overrides, draw_classes, place: Path
) -> None:
    draw_classes(place / "pictures", each=4)
    line = overrides("target=image_folder", "target.root=pictures", "budget.steps=2")
    assert cli("run", *line).code in (0, 1)  # two steps may teach it nothing
    directory = only(place / "outputs/default")["directory"]
    path = directory / "config.yaml"
    whole = yaml.safe_load(path.read_text())
    (place / "trap.py").write_text("open('went_off', 'w')\nclass Head: pass\n")
    for target, why in (("os.system", "standard library"), ("trap.Head", "add --allow trap")):
        path.write_text(
            yaml.safe_dump(
                whole | {"head": {"_target_": target}, "allowed_packages": ["trap", "os"]}
            )
        )
        told(cli("predict", directory, "pictures"), 2, target, why, "config.yaml")
        assert not (place / "went_off").exists()
    path.write_text(yaml.safe_dump(whole))
    assert cli("predict", directory, "pictures").code == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("name=../out", "it names a folder"),
        ("name=/etc", "it names a folder"),
        ("name=..", "it names a folder"),
        ("target.also_test.../../x.root=pictures", "also_test"),
        ("experiment=further", "target.also_test.../x: its name names a file"),
    ],
)
def test_names_stay_in_their_folder(line: str, said: str, cli, draw_classes, place: Path) -> None:
    draw_classes(place / "pictures", each=4)
    experiment = place / "conf" / "experiment" / "further.yaml"
    experiment.parent.mkdir(parents=True)
    sets = {"target": {"also_test": {"../x": {"root": "pictures"}}}}
    experiment.write_text("# @package _global_\n" + yaml.safe_dump(sets))
    told(cli("run", "target=image_folder", "target.root=pictures", line), 2, said)
    assert sorted(p.name for p in place.parent.iterdir() if p.name != "cache") == ["place"]
    assert not list(place.rglob("run.json"))


@pytest.mark.slow
def test_classes_with_tags_in_their_names_are_text_everywhere(
    cli, overrides: Overrides, draw_classes, place: Path
) -> None:
    bad = "<script>alert(1)"
    draw_classes(place / "pictures", classes=(bad, '"><img src=x onerror=alert(1)>', "=1+1"))
    line = overrides("target=image_folder", "target.root=pictures", "target.shots=3", "name=tags")
    cli("run", "-m", "strategy=scratch,fine_tune", "source=noise", "seed=0,1",
        "source.pretrain.budget.steps=2", *line)  # fmt: skip
    folder = place / "outputs/tags"
    page = (folder / "report.html").read_text()
    assert "<script" not in page
    assert "<img" not in page
    for card in [folder / "card.md", *folder.glob("runs/*/card.md")]:
        assert "<script" not in card.read_text(), card
        assert "<img" not in card.read_text(), card


def files(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("devices", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_secrets_of_the_environment_are_written_nowhere(
    devices: str, cli, parts: str, overrides: Overrides, place: Path,
    fresh_cache: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in ("HF_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, f"{CANARY}-{name}")
    line = overrides("target.shots=5", parts, f"trainer.devices={devices}")
    failed = cli("run", "+strategy.callbacks.x._target_=faulty.Leaks", *line)
    assert failed.code == 1
    record = only(place / "outputs/default")
    assert "401 for" in record["reason"]
    assert "<HF_TOKEN>" in Path(record["log"]).read_text()
    for override in (f"+tracker.x.api_key={CANARY}", "data_root=${oc.env:HF_TOKEN}",
                     f"data_root=https://ann:{CANARY}@host.org/x"):  # fmt: skip
        refused = cli("run", override, *line)
        told(refused, 2, "set the secret in the environment")
        assert CANARY not in refused.out + refused.err
    shown = cli("run", "--cfg", "job", "--resolve", "data_root=${oc.env:HF_TOKEN}")
    assert "data_root: <HF_TOKEN>" in shown.out
    assert CANARY not in failed.out + failed.err + shown.out
    found = [p for p in files(place / "outputs", fresh_cache) if CANARY.encode() in p.read_bytes()]
    assert not found


@pytest.mark.slow
def test_a_disk_that_fills_is_named_and_the_run_goes_on(
    cli, parts: str, overrides: Overrides, place: Path, mounted: Callable[..., Path]
) -> None:
    disk = mounted("disk", "size=30m")
    node = f"{{_target_:faulty.Fills,folder:'{disk}',once:'{place / 'once'}'}}"
    line = ("run", "strategy=scratch", f"+strategy.callbacks.x={node}", f"output_dir={disk}/out",
            *overrides("target.shots=5", parts, "checkpoint.every_steps=2"))  # fmt: skip
    told(cli(*line), 1, f"the disk of {disk}/out", "is full", "needs more")
    assert not list(disk.rglob("*.tmp"))
    assert not list(disk.rglob("run.json")), "nothing is recorded that did not happen"
    full = cli(*line)
    told(full, 2, str(disk))
    (disk / "filler").unlink()
    assert cli(*line).code in (0, 1)
    record = only(disk / "out")
    assert record["status"] in ("done", "diverged")
    assert record["resumed_at_steps"] == [4]
    assert not list(record["directory"].glob("resume*"))


def test_what_will_not_fit_is_refused_before_anything_runs(
    cli, overrides: Overrides, mounted: Callable[..., Path]
) -> None:
    disk = mounted("disk", "size=3m")
    line = overrides("target.shots=5", f"output_dir={disk}/out")
    told(cli("run", "strategy=scratch", *line), 2, "needs about", f"{disk}", "are free")
    told(cli("run", "-m", "strategy=scratch", "seed=0,1", *line), 2, "the study", "needs about")
    assert not list(disk.rglob("run.json"))


def test_a_folder_that_is_read_only_is_told_before_training(
    cli, overrides: Overrides, place: Path, mounted: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    disk = mounted("disk", "size=1m,ro")
    line = overrides("target.shots=5")
    told(cli("run", *line, f"output_dir={disk}/out"), 2, "Read-only", "Set output_dir")
    for cache in (disk, disk / "deeper"):
        monkeypatch.setenv("TRANSFERLAB_CACHE", str(cache))
        told(cli("run", *line), 2, "Read-only", "TRANSFERLAB_CACHE")
    assert not list((place / "outputs").rglob("run.json"))


@pytest.mark.parametrize("kind", ["Greedy", "Exhausted"])
def test_memory_that_ends_names_the_remedy(
    kind: str, cli, parts: str, overrides: Overrides, place: Path
) -> None:
    line = overrides("target.shots=5", parts)
    result = cli("run", "strategy=scratch", f"loss._target_=faulty.{kind}", *line)
    told(result, 1, "out of memory with batch_size=8", "trainer.accumulate=2",
         "trainer.precision=bf16-mixed", "trainer.gradient_checkpointing=true")  # fmt: skip
    record = only(place / "outputs/default")
    assert record["status"] == "failed"
    assert record["reason"] in result.err
    assert "in forward" in Path(record["log"]).read_text()


@pytest.mark.slow
def test_a_study_goes_on_after_memory_ended_in_some_runs(
    cli, parts: str, overrides: Overrides, place: Path
) -> None:
    line = overrides("target.shots=5", parts, "name=grid", "budget.steps=30")
    losses = "loss._target_=faulty.Exhausted,transferlab.losses.CrossEntropy"
    result = cli("run", "-m", "strategy=scratch", "seed=0,1", losses, *line)
    found = [json.loads(p.read_text()) for p in place.glob("outputs/grid/runs/*/run.json")]
    assert sorted(r["status"] == "failed" for r in found) == [False, False, True, True]
    assert result.code == 1
    assert "out of memory" in result.lines[-1]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_loss_that_is_no_number_from_the_first_step_is_an_outcome(
    precision: str, cli, parts: str, overrides: Overrides, place: Path
) -> None:
    line = overrides("target.shots=5", parts, f"trainer.precision={precision}")
    result = cli("run", "strategy=scratch", "loss._target_=faulty.Lost", *line)
    told(result, 1, "diverged")
    record = only(place / "outputs/default")
    assert (record["status"], record["metrics"]["test"]) == ("diverged", None)


@pytest.mark.slow
def test_every_validation_s_weights_stay_where_asked_for(
    cli, overrides: Overrides, place: Path
) -> None:
    more = overrides("target.shots=5", "trainer.validations=3", "budget.steps=24")
    line = ("run", "strategy=scratch", *more)
    assert cli(*line).code in (0, 1)
    directory = only(place / "outputs/default")["directory"]
    assert [p.name for p in directory.rglob("*.safetensors")] == ["last.safetensors"]
    assert cli(*line, "checkpoint.keep=all").code in (0, 1)
    steps = sorted(p.name for p in directory.glob("checkpoints/steps/*"))
    assert steps == [f"step-{step:010d}.safetensors" for step in (8, 16, 24)]
    assert not (directory / "resume").exists(), "optimizer state goes when a run is done"
    told(cli(*line, "checkpoint.keep=best"), 2, "checkpoint.select=best too")
    told(cli(*line, "checkpoint.keep=all", "strategy=auto_depth"), 2, "several fits")


@pytest.mark.slow
def test_a_source_run_whose_weights_were_damaged_is_made_again(
    cli, overrides: Overrides, place: Path, fresh_cache: Path
) -> None:
    line = overrides("target.shots=5", "source=glyphs", glyphs=True)
    assert cli("run", *line).code in (0, 1)
    (path,) = fresh_cache.glob("runs/*/checkpoints/last.safetensors")
    whole = path.read_bytes()
    for damage in (whole[:1000], b""):
        path.write_bytes(damage)
        shutil.rmtree(place / "outputs")
        assert cli("run", *line).code in (0, 1)
        assert path.read_bytes() == whole


@pytest.mark.slow
def test_damaged_entries_of_the_cache_are_made_again(
    cli, overrides: Overrides, place: Path, fresh_cache: Path
) -> None:
    line = overrides("target.shots=5", "strategy=scratch", "budget.steps=24")
    assert cli("run", *line).code in (0, 1)
    before = {p: p.read_bytes() for p in files(fresh_cache) if ".lease." not in p.name}
    assert {p.parent.name for p in before} >= {"decoded", "splits", "baselines", "near_duplicates"}
    for length in (0, 50):
        for path, content in before.items():
            path.write_bytes(content[:length])
        shutil.rmtree(place / "outputs")
        assert cli("run", *line).code in (0, 1)
        for path, content in before.items():
            if path.parent.name == "precision":  # what timing found this time
                assert json.loads(path.read_text()).keys() == json.loads(content).keys()
            elif path.suffix != ".npz":  # zip files carry the time at which they were made
                assert path.read_bytes() == content, path


@pytest.mark.slow
def test_processes_that_fill_one_cache_at_once_end_with_one_good_entry(
    cli, overrides: Overrides, place: Path, fresh_cache: Path
) -> None:
    line = overrides("target.shots=5", "source=glyphs", "budget.steps=30", glyphs=True)
    several = [
        subprocess.Popen([PROGRAM, "run", *line, f"name=n{number}"], stderr=subprocess.PIPE)
        for number in range(3)
    ]
    ends = [(process.communicate()[1], process.returncode) for process in several]
    assert all(code == 0 for _, code in ends), ends
    assert not list(fresh_cache.rglob("*.tmp"))
    assert len(list(fresh_cache.glob("runs/*/run.json"))) == 1
    scores = [only(place / f"outputs/n{number}")["metrics"] for number in range(3)]
    assert scores[0] == scores[1] == scores[2]
    before = {p: p.stat().st_mtime_ns for p in files(fresh_cache) if ".lease." not in p.name}
    assert cli("run", *line, "name=again").code == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before, "every entry is whole"
