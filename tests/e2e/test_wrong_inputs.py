"""Wrong inputs end with one line that names what came in and what to do, and lose nothing."""

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

PICTURES = ("target=image_folder", "target.root=pictures")
STUDY = """# @package _global_
defaults:
  - override /hydra/sweeper: study
name: wrong
hydra: {{mode: MULTIRUN}}
study:
  cells: {cells}
  arms: {arms}
  tune: {tune}
  seeds: 3
"""


@dataclass(frozen=True)
class Wrong:
    """A command line, and what its one line on stderr must hold."""

    line: str
    holds: tuple[str, ...]
    code: int = 2


def declare(
    name: str,
    arms: str = "{source: [glyphs], strategy: [fine_tune]}",
    cells: str = "{}",
    grid: str = "{optimizer.lr: [0.01, 0.1]}",
    tune: str | None = None,
) -> None:
    """Write a study into the working directory's own configuration folder."""
    path = Path("conf/experiment") / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    tune = tune or f"{{grid: {grid}, seeds: 2}}"
    path.write_text(STUDY.format(arms=arms, cells=cells, tune=tune))


COMMANDS = {
    "command": Wrong("rnu seed=1", ("rnu", "nearest: run")),
    "flag": Wrong("run --dryrun", ("--dryrun", "--dry-run")),
    "flag value": Wrong("run --cfg jb", ("--cfg jb", "nearest: job")),
    "config folder": Wrong("run --config-dir nowhere", ("--config-dir nowhere", "no such folder")),
    "form": Wrong("run source", ("'source'", "key=value", "--help")),
    "grammar": Wrong("run head={a", ("head={a", "Quote")),
    "report takes one": Wrong("report", ("[]", "transferlab report DIR")),
    "report nowhere": Wrong("report nowhere", ("nowhere", "transferlab run")),
    "status nowhere": Wrong("status nowhere", ("nowhere", "such as outputs/")),
    "predict nowhere": Wrong("predict nowhere a.png", ("nowhere", "run.json", "below runs/")),
    "predict takes two": Wrong("predict a", ("['a']", "transferlab predict RUN IMAGES")),
    "predict flag": Wrong("predict a b --outptu", ("--outptu", "--output")),
}

CHOICES = {
    "backbone": Wrong("run backbone=resnet10", ("backbone=resnet10", "resnet10t")),
    "timm name": Wrong("run backbone=timm backbone.name=resnet51", ("'resnet51'", "resnet50")),
    "strategy": Wrong("run strategy=finetune", ("strategy=finetune", "fine_tune")),
    "dataset": Wrong("run target=digit", ("target=digit", "digits")),
    "source": Wrong("run source=glyph", ("source=glyph", "glyphs")),
    "head": Wrong("run head=linaer", ("head=linaer", "linear")),
    "metric": Wrong("run metric=acuracy", ("metric=acuracy", "accuracy")),
    "metric name": Wrong("run metric.name=f1", ("metric.name=f1", "macro_recall")),
    "experiment": Wrong("run experiment=digit", ("experiment=digit", "digits")),
    "swept choice": Wrong("run -m strategy=scratch,fine_tun", ("fine_tun", "nearest: fine_tune")),
    "option": Wrong("run target.images.alpha=blend", ("target.images.alpha=blend", "white")),
    "precision": Wrong("run trainer.precision=8", ("trainer.precision=8", "bf16-mixed")),
    "nodes": Wrong("run trainer.num_nodes=2", ("trainer.num_nodes=2", "hydra/launcher=slurm")),
    "launcher": Wrong("run hydra/launcher=slrm", ("hydra/launcher=slrm", "nearest: slurm")),
    "jobs' time": Wrong(
        "run hydra/launcher=slurm hydra.launcher.time=0", ("hydra.launcher.time=0", "1 or more")
    ),
    "jobs' key": Wrong(
        "run hydra/launcher=slurm hydra.launcher.tmie=9", ("hydra.launcher.tmie", "launcher.time")
    ),
    "fetch flag": Wrong("fetch --dry-run", ("--dry-run", "transferlab run")),
    "devices": Wrong("run trainer.devices=900", ("trainer.devices=900", "this machine has")),
    "published tag": Wrong("run source=published source.tag=a1_in2k", ("a1_in2k", "r160_in1k")),
    "torchvision set": Wrong(
        "run target=torchvision target.dataset.name=CIFAR11 target.root=.", ("CIFAR11", "CIFAR10")
    ),
}

KEYS = {
    "below nothing": Wrong(
        "run source.pretrain.budget.steps=5",
        ("source.pretrain.budget.steps=5", "source=glyphs"),
    ),
    "at the root": Wrong("run sede=3", ("'sede'", "seed")),
    "nested": Wrong("run target.shot=5", ("'target.shot'", "target.shots")),
    "of a callback": Wrong(
        "run strategy=layer_decay strategy.callbacks.layer_decay.decya=0.5",
        ("decya", "strategy.callbacks.layer_decay.decay"),
    ),
    "added at the root": Wrong("run +sede=3", ("'sede'", "seed")),
    "added below": Wrong("run +target.shot=5", ("'target.shot'", "shots")),
    "of another choice": Wrong("run scheduler=multistep scheduler.warmup=1", ("scheduler.warmup",)),
    "removed": Wrong("run ~head", ("head must be set", "head=VALUE")),
    "of no study": Wrong("run study.seeds=3", ("study.seeds=3", "experiment=NAME")),
    "target class": Wrong(
        "run head._target_=transferlab.heads.linear.LinerHead", ("LinerHead", "LinearHead")
    ),
    "target module": Wrong(
        "run head._target_=nosuch.Thing allowed_packages=[nosuch]",
        ("nosuch.Thing", "no module nosuch"),
    ),
    "target outside": Wrong("run head._target_=os.getcwd", ("os.getcwd", "standard library")),
}

VALUES = {
    "seed": Wrong("run seed=abc", ("seed", "'abc'", "Integer", "Give a whole number")),
    "negative seed": Wrong("run seed=-1", ("seed=-1", "[0,")),
    "seed twice": Wrong("run -m seed=0,0", ("seed=0,0", "twice")),
    "swept seed": Wrong("run -m seed=0,x", ("seed=x", "whole numbers")),
    "batch size": Wrong("run batch_size=1.5", ("batch_size", "1.5", "Integer")),
    "negative batch": Wrong("run batch_size=-4", ("batch_size=-4", "[1,")),
    "rate": Wrong("run optimizer.lr=fast", ("optimizer.lr='fast'", "number")),
    "endless rate": Wrong("run optimizer.lr=1e30", ("optimizer.lr=1e+30", "1e+06")),
    "decay": Wrong("run optimizer.weight_decay=-1", ("weight_decay", "-1", "optimizer.*")),
    "shots": Wrong("run target.shots=many", ("target.shots", "'many'", "Integer")),
    "no shots": Wrong("run target.shots=0", ("target.shots=0", "[1,")),
    "no steps": Wrong("run budget.steps=0", ("budget.steps=0", "[1,")),
    "image size": Wrong("run backbone.image_size=-3", ("backbone.image_size=-3", "at least 8")),
    "test share": Wrong("run target.test=1", ("target.test=1", "(0, 1)")),
    "callback": Wrong(
        "run strategy=layer_decay strategy.callbacks.layer_decay.decay=1.5",
        ("decay=1.5", "(0, 1)"),
    ),
    "head": Wrong("run head=cosine head.scale=big", ("head.scale='big'", "number")),
    "backbone argument": Wrong("run +backbone.kwargs.deep=3", ("deep", "Check backbone.kwargs")),
    "shots and fraction": Wrong(
        "run target.shots=5 target.fraction=0.5", ("shots=5", "fraction=0.5", "one of the two")
    ),
    "both budgets": Wrong(
        "run budget.epochs=2", ("budget.steps=200", "budget.epochs=2", "budget.steps=null")
    ),
    "sweep without -m": Wrong("run seed=0,1", ("seed=0,1", "need -m")),
    "name": Wrong("run name=../up", ("'../up'", "letters")),
    "no root": Wrong("run target=image_folder", ("target.root", "target.root=DIR")),
    "no path": Wrong("run source=checkpoint", ("source.path", "source.path=FILE")),
    "no parts": Wrong("run source=composed", ("source.parts", "source.parts=[NAME,NAME]")),
    "one part": Wrong("run source=composed source.parts=[glyphs]", ("two parts", "source=glyphs")),
    "part twice": Wrong("run source=composed source.parts=[noise,noise]", ("noise", "twice")),
    "part": Wrong("run source=composed source.parts=[glyphs,nois]", ("source=nois", "noise")),
    "left-out part": Wrong(
        "run source=composed source.parts=[glyphs,noise] source.leave_out=digits",
        ("source.leave_out=digits", "noise"),
    ),
    "forgetting nothing": Wrong("run forgetting=true", ("forgetting=true", "source=glyphs")),
    "forgetting scratch": Wrong(
        "run -m forgetting=true strategy=scratch seed=0,1", ("forgetting=true", "random weights")
    ),
}


def broken_folder() -> None:
    path = Path("pictures/ant/3.png")
    path.write_bytes(path.read_bytes()[:40])


def odd_image(name: str, pixels: np.ndarray, mode: str | None = None) -> Callable[[], None]:
    def make() -> None:
        Image.fromarray(pixels).save(f"pictures/ant/{name}")

    def make_in_mode() -> None:
        Image.frombytes(mode or "", pixels.shape[:2], pixels.tobytes()).save(f"pictures/ant/{name}")

    return make if mode is None else make_in_mode


def grouped_names() -> None:
    for path in sorted(Path("pictures").rglob("*.png")):
        number = int(path.stem)
        path.rename(path.with_name(f"p{number // 3:03d}_{number % 3}.png"))


def one_class() -> None:
    for path in Path("pictures/bee").iterdir():
        path.unlink()
    Path("pictures/bee").rmdir()


def file_in_the_way() -> None:
    Path("taken").write_text("a file")


def model(name: str = "test_resnet") -> dict[str, torch.Tensor]:
    return dict(timm.create_model(name, num_classes=7).state_dict())


def truncated_safetensors() -> None:
    save_file(model(), "weights.safetensors")
    whole = Path("weights.safetensors").read_bytes()
    Path("weights.safetensors").write_bytes(whole[:5000])


def truncated_pickle() -> None:
    torch.save(model(), "weights.pt")
    Path("weights.pt").write_bytes(Path("weights.pt").read_bytes()[:5000])


class Touches:
    """An object whose unpickling leaves a file behind."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def code_in_a_pickle() -> None:
    torch.save({"conv1.0.weight": torch.zeros(2), "more": Touches()}, "weights.pt")


def code_in_an_old_pickle() -> None:
    Path("weights.pt").write_bytes(pickle.dumps(Touches()))


def user_yaml(path: str, text: str) -> Callable[[], None]:
    def make() -> None:
        file = Path("conf") / path
        file.parent.mkdir(parents=True)
        file.write_text(text)

    return make


CHECKPOINT = "source=checkpoint source.path="
RANDOM = np.random.default_rng(0)
DEEP = RANDOM.integers(0, 2**16, (16, 16), dtype=np.uint16)
FOUR = RANDOM.integers(0, 256, (16, 16, 4), dtype=np.uint8)
FOUND: dict[str, tuple[Callable[[], object], Wrong]] = {
    "missing folder": (
        lambda: Path("pictures").rename("picture"),
        Wrong("", ("target.root=pictures", "nearest: picture")),
    ),
    "missing source folder": (
        lambda: None,
        Wrong("source=image_folder source.root=picturs", ("source.root=picturs", "pictures")),
    ),
    "a file as folder": (
        file_in_the_way,
        Wrong("target.root=taken", ("target.root=taken", "a folder is needed")),
    ),
    "empty folder": (
        lambda: Path("empty").mkdir(),
        Wrong("target.root=empty", ("empty is empty", "target.root")),
    ),
    "empty class": (
        lambda: Path("pictures/cat").mkdir(),
        Wrong("", ("pictures/cat", "Fill it or remove it")),
    ),
    "one class": (one_class, Wrong("", ("(ant)", "two classes or more"))),
    "fewer images than shots": (
        lambda: None,
        Wrong("target.shots=50", ("target.shots=50", "'ant'", "target.shots=7")),
    ),
    "broken image": (broken_folder, Wrong("", ("ant/3.png", "target.images.broken=skip"))),
    "16 bits": (
        odd_image("odd.png", DEEP),
        Wrong("", ("odd.png", "16 bits", "target.images.more_than_8_bits=scale")),
    ),
    "alpha": (
        odd_image("odd.png", FOUR),
        Wrong("", ("odd.png", "alpha", "target.images.alpha=white")),
    ),
    "CMYK": (
        odd_image("odd.jpg", FOUR, "CMYK"),
        Wrong("", ("odd.jpg", "CMYK", "target.images.cmyk=convert")),
    ),
    "grouped names": (
        grouped_names,
        Wrong("", ("p000", "target.group_by=prefix", "target.group_by=none")),
    ),
    "unknown group": (
        lambda: None,
        Wrong("target.group_by=patient", ("target.group_by=patient", "prefix")),
    ),
    "output is a file": (
        file_in_the_way,
        Wrong("output_dir=taken", ("output_dir=taken", "Set output_dir")),
    ),
    "output below a file": (
        file_in_the_way,
        Wrong("output_dir=taken/in", ("output_dir=taken/in", "Set output_dir")),
    ),
    "missing checkpoint": (
        lambda: None,
        Wrong(CHECKPOINT + "nope.pt", ("source.path=nope.pt", "Give a weights file")),
    ),
    "truncated safetensors": (
        truncated_safetensors,
        Wrong(CHECKPOINT + "weights.safetensors", ("weights.safetensors", "truncated", "Give a")),
    ),
    "truncated pickle": (
        truncated_pickle,
        Wrong(CHECKPOINT + "weights.pt", ("weights.pt", "truncated", "Give a")),
    ),
    "other architecture": (
        lambda: save_file(model("test_vit"), "weights.safetensors"),
        Wrong(CHECKPOINT + "weights.safetensors", ("weights.safetensors", "Set backbone.name")),
    ),
    "code in a pickle": (
        code_in_a_pickle,
        Wrong(CHECKPOINT + "weights.pt", ("weights.pt", "weights_only=True")),
    ),
    "code in an old pickle": (
        code_in_an_old_pickle,
        Wrong(CHECKPOINT + "weights.pt", ("weights.pt", "weights_only=True")),
    ),
    "no tensors": (
        lambda: torch.save([1, 2], "weights.pt"),
        Wrong(CHECKPOINT + "weights.pt", ("weights.pt", "Save model.state_dict()")),
    ),
    "no run": (
        lambda: None,
        Wrong(CHECKPOINT + "pictures", ("pictures", "checkpoint.keep=last")),
    ),
    "classes that don't fit": (
        lambda: save_file(model(), "weights.safetensors"),
        Wrong(
            CHECKPOINT + "weights.safetensors source.classes=9",
            ("source.classes=9", "source.classes=7"),
        ),
    ),
    "missing table": (
        lambda: None,
        Wrong("target=table target.dataset.path=no.csv", ("target.dataset.path=no.csv",)),
    ),
    "missing column": (
        lambda: Path("list.csv").write_text("file,label\nant/0.png,ant\nbee/0.png,bee\n"),
        Wrong(
            "target=table target.dataset.path=list.csv",
            ("'path'", "target.dataset.path_column", "file"),
        ),
    ),
    "own head with a typo": (
        user_yaml("head/mine.yaml", "_target_: transferlab.heads.mlp.MLPHead\nhiden: 64\n"),
        Wrong("head=mine", ("head.hiden", "nearest: hidden")),
    ),
    "own strategy with a typo": (
        user_yaml("strategy/mine.yaml", "name: mine\ninnit: source\n"),
        Wrong("strategy=mine", ("strategy.innit", "strategy.init")),
    ),
    "own callback with a typo": (
        user_yaml(
            "strategy/mine.yaml",
            "name: mine\ncallbacks:\n  frozen:\n"
            "    _target_: transferlab.callbacks.freezing.FrozenBackbon\n",
        ),
        Wrong("strategy=mine", ("FrozenBackbon", "nearest: FrozenBackbone")),
    ),
    "own file that is no YAML": (
        user_yaml("head/mine.yaml", "_target_: [a\n"),
        Wrong("head=mine", ("head/mine.yaml", "line 1", "Mend")),
    ),
    "own file that shadows": (
        user_yaml("head/linear.yaml", "{}\n"),
        Wrong("", ("head/linear.yaml", "Rename yours")),
    ),
}

STUDIES: dict[str, tuple[dict[str, str], Wrong]] = {
    "looks beyond the seeds": (
        {},
        Wrong("study.looks=[2,9]", ("study.looks=[2, 9]", "study.seeds=3", "end at 3")),
    ),
    "no arms": ({"arms": "{}"}, Wrong("", ("study.arms is empty", "source: [glyphs]"))),
    "empty axis": (
        {"arms": "{source: [], strategy: [fine_tune]}"},
        Wrong("", ("study.arms.source", "at least one value")),
    ),
    "mixed forms": (
        {"arms": "{source: [glyphs], mine: [strategy=fine_tune]}"},
        Wrong("", ("mine", "one of the two forms")),
    ),
    "arm with a typo": (
        {"arms": "{mine: [strategy=fine_tun]}"},
        Wrong("", ("strategy=fine_tun", "nearest: fine_tune")),
    ),
    "empty cell": (
        {"cells": "{target.shots: []}"},
        Wrong("", ("study.cells.target.shots", "at least one value")),
    ),
    "cell with a typo": (
        {"cells": "{target.shot: [5]}"},
        Wrong("", ("'target.shot'", "nearest: target.shots")),
    ),
    "empty grid": (
        {"grid": "{optimizer.lr: []}"},
        Wrong("", ("study.tune.grid.optimizer.lr", "at least one value")),
    ),
    "grid key with a typo": (
        {"grid": "{optimizer.lrr: [1]}"},
        Wrong("", ("'optimizer.lrr'", "nearest: optimizer.lr")),
    ),
    "grid value": ({"grid": "{optimizer.lr: [0.1, fast]}"}, Wrong("", ("'fast'", "number"))),
    "one seed": ({}, Wrong("study.seeds=1", ("study.seeds=1", "[2,"))),
    "no tuning seeds": ({}, Wrong("study.tune.seeds=0", ("study.tune.seeds=0", "[1,"))),
    "margin": ({}, Wrong("study.verdict.margin=2", ("study.verdict.margin=2", "(0, 1]"))),
    "verdict key": ({}, Wrong("study.verdict.margn=1", ("margn", "study.verdict.margin"))),
    "no parts to leave out": ({}, Wrong("study.leave_one_out=true", ("composed", "source.parts"))),
    "metric": ({}, Wrong("study.verdict.metric=f1", ("metric=f1", "macro_recall"))),
    "trials of a grid": ({}, Wrong("study.tune.trials=9", ("study.tune.trials=9", "search"))),
    "pruning of a grid": ({}, Wrong("study.tune.prune=median", ("prune=median", "search"))),
}
RATES = "optimizer.lr: {low: 0.001, high: 0.1, log: true}"
SEARCHES: dict[str, tuple[str, Wrong]] = {
    "grid and search": ("grid: {optimizer.lr: [0.1]}", Wrong("", ("grid and a search", "one of"))),
    "extend": ("extend: 1", Wrong("", ("study.tune.extend=1", "study.tune.grid"))),
    "per replicate": ("per: replicate", Wrong("", ("study.tune.per=replicate", "grid"))),
    "own best": ("", Wrong("study.own_best=[6,12]", ("study.own_best=[6, 12]", "grid"))),
    "sampler": ("sampler: cmaes", Wrong("", ("sampler=cmaes", "random, tpe"))),
    "pruner": ("prune: mean", Wrong("", ("prune=mean", "median"))),
    "one trial": ("trials: 1", Wrong("", ("study.tune.trials=1", "[2,"))),
    "no batch": ("batch: 0", Wrong("", ("study.tune.batch=0", "[1,"))),
    "one validation": (
        "prune: median",
        Wrong("trainer.validations=1", ("trainer.validations=1", "trainer.validations=5")),
    ),
    "many fits": (
        "prune: median",
        Wrong("study.arms.strategy=[auto_depth]", ("strategy=auto_depth", "prune=null")),
    ),
    "stopped by another score": (
        "prune: median",
        Wrong("study.verdict.metric=log_loss", ("by accuracy", "chooses by log_loss")),
    ),
}
SPACES: dict[str, tuple[str, tuple[str, ...]]] = {
    "typo": ("optimizer.lrr: {low: 0.1, high: 0.2}", ("'optimizer.lrr'", "nearest: optimizer.lr")),
    "range": ("optimizer.lr: {low: 0.1}", ("optimizer.lr", "high: 1e-1")),
    "key of a range": ("optimizer.lr: {low: 0.1, high: 1.0, lgo: true}", ("'lgo'", "log")),
    "ends": ("optimizer.lr: {low: 0.1, high: 0.01}", ("low=0.1", "below high")),
    "value": ("optimizer.lr: [0.1, fast]", ("'fast'", "number")),
    "end out of bounds": ("optimizer.lr: {low: -0.5, high: 0.5}", ("optimizer.lr=-0.5", "(0,")),
    "budget": ("budget.steps: [5, 10]", ("study.tune.search.budget.steps", "equal steps")),
}


def judge(result, wrong: Wrong) -> None:
    """One line that says what came in and what to do, and the exit code that belongs to it."""
    assert result.code == wrong.code, result.err
    assert len(result.lines) == 1, result.err
    line = result.lines[0]
    assert line.startswith("transferlab: ")
    assert len(line) < 600
    assert "Traceback" not in line
    assert "Error executing job" not in line
    for text in wrong.holds:
        assert text in line


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def earlier(place: Path) -> Callable[[], None]:
    """A run that lies in the output folder already; returns the check that it still does."""
    folder = place / "outputs/default/runs/0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"run_id": folder.name, "status": "done"}))
    before = snapshot(folder)

    def check() -> None:
        assert snapshot(folder) == before
        for other in folder.parent.glob("*/run.json"):  # a run that failed leaves its reason
            assert other.parent == folder or json.loads(other.read_text())["status"] == "failed"

    return check


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(wrong, id=f"{kind} {name}")
        for kind, table in {"": COMMANDS, "no": CHOICES, "key": KEYS, "value": VALUES}.items()
        for name, wrong in table.items()
    ],
)
def test_a_wrong_word_is_named_before_data_are_read(wrong: Wrong, cli, earlier) -> None:
    judge(cli(*wrong.line.split(" ")), wrong)
    earlier()


@pytest.mark.parametrize(("prepare", "wrong"), FOUND.values(), ids=FOUND.keys())
def test_wrong_data_and_files_are_named_before_training(
    prepare: Callable[[], object],
    wrong: Wrong,
    cli,
    place: Path,
    earlier,
    overrides,
    draw_classes,
) -> None:
    draw_classes(place / "pictures")
    prepare()
    judge(cli("run", *overrides(*PICTURES), *wrong.line.split()), wrong)
    earlier()
    assert not (place / "executed").exists()
    trained = list((place / "outputs").rglob("predictions.parquet"))
    assert not trained


@pytest.mark.parametrize(("declared", "wrong"), STUDIES.values(), ids=STUDIES.keys())
def test_a_wrong_study_is_named_before_anything_runs(
    declared: dict[str, str], wrong: Wrong, cli, place: Path
) -> None:
    declare("wrong", **declared)
    judge(cli("run", "experiment=wrong", *wrong.line.split()), wrong)
    assert not list((place / "outputs").rglob("config.yaml"))


needs_optuna = pytest.mark.skipif(find_spec("optuna") is None, reason="optuna is missing")


@needs_optuna
@pytest.mark.parametrize(("tune", "wrong"), SEARCHES.values(), ids=SEARCHES.keys())
def test_a_wrong_search_is_named_before_anything_runs(
    tune: str, wrong: Wrong, cli, place: Path
) -> None:
    declare("wrong", tune=f"{{search: {{{RATES}}}, {tune}}}")
    judge(cli("run", "experiment=wrong", *wrong.line.split()), wrong)
    assert not list((place / "outputs").rglob("config.yaml"))


@needs_optuna
@pytest.mark.parametrize(("space", "holds"), SPACES.values(), ids=SPACES.keys())
def test_a_wrong_space_is_named_before_anything_runs(
    space: str, holds: tuple[str, ...], cli, place: Path
) -> None:
    declare("wrong", tune=f"{{search: {{{space}}}}}")
    judge(cli("run", "experiment=wrong"), Wrong("", holds))
    assert not list((place / "outputs").rglob("config.yaml"))


@pytest.mark.skipif(find_spec("optuna") is not None, reason="optuna is there")
def test_a_search_without_optuna_says_how_to_get_it(cli, place: Path) -> None:
    declare("wrong", tune=f"{{search: {{{RATES}}}}}")
    judge(cli("run", "experiment=wrong"), Wrong("", ("optuna 4", "pip install", "grid")))


@pytest.mark.parametrize(
    ("image", "option"),
    [
        (odd_image("odd.png", DEEP), "more_than_8_bits=scale"),
        (odd_image("odd.png", FOUR), "alpha=white"),
        (odd_image("odd.jpg", FOUR, "CMYK"), "cmyk=convert"),
    ],
    ids=["16 bits", "alpha", "CMYK"],
)
def test_an_odd_image_is_converted_when_the_option_says_how(
    image: Callable[[], None], option: str, cli, place: Path, overrides, draw_classes, read_run
) -> None:
    draw_classes(place / "pictures")
    image()
    assert cli("run", *overrides(*PICTURES), f"target.images.{option}").code == 0
    record = read_run(place / "outputs/default")
    assert sum(record[f"n_{part}"] for part in ("train", "validation", "test")) == 25


def test_broken_images_are_skipped_with_a_count(
    cli, place: Path, overrides, draw_classes, read_run
) -> None:
    draw_classes(place / "pictures")
    broken_folder()
    assert cli("run", *overrides(*PICTURES), "target.images.broken=skip").code == 0
    record = read_run(place / "outputs/default")
    assert record["skipped_images"] == ["ant/3.png"]
    assert sum(record[f"n_{part}"] for part in ("train", "validation", "test")) == 23


def test_a_loss_that_is_no_number_leaves_a_record_and_exits_1(
    cli, place: Path, overrides, draw_classes, read_run
) -> None:
    draw_classes(place / "pictures")
    line = ("run", *overrides(*PICTURES, "optimizer=sgd"), "optimizer.lr=1e6")
    result = cli(*line)
    judge(result, Wrong("", ("diverged", "NaN", "metrics.jsonl"), code=1))
    record = read_run(place / "outputs/default")
    assert record["status"] == "diverged"
    assert cli(*line).code == 1  # an outcome that stands
    assert read_run(place / "outputs/default") == record


def test_published_weights_without_network_say_how_to_do_without(
    cli, overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("socket.socket.connect", no_network)
    monkeypatch.setattr("socket.getaddrinfo", no_network)
    result = cli("run", *overrides("source=published"))
    judge(result, Wrong("", ("published weights of test_resnet", "source.path=FILE")))


class TestFoldersOfRuns:
    """Commands that read what runs have left."""

    @pytest.fixture
    def run(self, cli, place: Path, overrides, draw_classes) -> Path:
        draw_classes(place / "pictures")
        assert cli("run", *overrides(*PICTURES)).code == 0
        return next((place / "outputs/default/runs").iterdir())

    @pytest.mark.parametrize("command", ["report", "status"])
    @pytest.mark.parametrize("kind", ["empty", "foreign", "a file", "one run"])
    def test_a_folder_that_is_none_of_ours(self, command: str, kind: str, run: Path, cli) -> None:
        Path("empty").mkdir()
        Path("taken").write_text("x")
        folder = {"empty": "empty", "foreign": "pictures", "a file": "taken", "one run": run}[kind]
        result = cli(command, folder)
        judge(result, Wrong("", (str(folder), "Give the folder")))

    def test_predict_with_damaged_or_missing_weights(self, run: Path, cli) -> None:
        weights = run / "checkpoints/last.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:3000])
        judge(cli("predict", run, "pictures"), Wrong("", (str(weights), "truncated")))
        weights.unlink()
        judge(cli("predict", run, "pictures"), Wrong("", (str(run), "checkpoint.keep=last")))
        weights.write_bytes(whole)
        assert cli("predict", run, "pictures").code == 0

    def test_predict_with_foreign_weights(self, run: Path, cli) -> None:
        save_file(model(), run / "checkpoints/last.safetensors")
        judge(cli("predict", run, "pictures"), Wrong("", (str(run), "run it again")))

    def test_predict_on_what_is_no_image(self, run: Path, cli) -> None:
        Path("empty").mkdir()
        Path("notes.txt").write_text("x")
        judge(cli("predict", run, "nix.png"), Wrong("", ("nix.png",)))
        judge(cli("predict", run, "empty"), Wrong("", ("empty", "Give image files")))
        judge(cli("predict", run, "notes.txt"), Wrong("", ("notes.txt", "can't be read")))
        assert not Path("predictions.csv").exists()

    def test_predict_into_a_file_that_can_not_be(self, run: Path, cli) -> None:
        Path("taken").write_text("x")
        result = cli("predict", run, "pictures", "--output", "taken/x.csv")
        judge(result, Wrong("", ("taken/x.csv", "--output")))

    def test_a_damaged_record_costs_no_other(self, run: Path, cli, overrides, read_run) -> None:
        (run / "run.json").write_text('{"run')
        judge(cli("predict", run, "pictures"), Wrong("", ("run.json", "Run it again")))
        status = cli("status", "outputs/default")
        assert (status.code, status.err) == (0, "")
        assert "1 queued" in status.out
        judge(cli("report", "outputs/default"), Wrong("", ("run.json", "damaged")))
        assert cli("run", *overrides(*PICTURES)).code == 0
        assert read_run(Path("outputs/default"))["status"] == "done"


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(CHOICES["strategy"], id="choice"),
        pytest.param(KEYS["target class"], id="target class"),  # Hydra's log would add lines here
    ],
)
@pytest.mark.slow
def test_the_program_says_the_same_in_a_process_of_its_own(wrong: Wrong, program) -> None:
    judge(program(*wrong.line.split(" ")), wrong)


def test_a_fault_of_ours_is_one_line_too(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(_: object) -> None:
        raise LookupError("a fault")

    monkeypatch.setattr("transferlab.job.plan_run", fault)
    result = cli("run")
    judge(result, Wrong("", ("LookupError", "a fault", "--debug"), code=1))
    with pytest.raises(LookupError):
        cli("run", "--debug")
