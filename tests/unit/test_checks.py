"""Everything wrong with a configuration is told in one line before data is read."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from transferlab.building import build
from transferlab.checks import check, check_output
from transferlab.composing import KNOWN, explain, group_names, keys, parse
from transferlab.config import config_folder
from transferlab.errors import UserError, nearest

Compose = Callable[..., DictConfig]


@pytest.mark.parametrize(
    "overrides",
    [
        (), ("source=glyphs", "strategy=layer_decay"), ("head=cosine", "augmentation=light_flip"),
        ("budget.epochs=2", "budget.steps=null"), ("optimizer=sgd", "scheduler=multistep"),
        ("source=glyphs", "source.pretrain.budget.epochs=1", "source.pretrain.budget.steps=null"),
        ("target.shots=1", "loss=class_weights"), ("tracker=wandb", "metric=macro_recall"),
        ("loss.class_weights=[1,2,3.5]",), ("backbone=timm", "backbone.name=vit_tiny_patch16_224"),
    ],
)  # fmt: skip
def test_valid_configurations_pass(overrides: tuple[str, ...], compose: Compose) -> None:
    check(compose(*overrides))


WRONG = [
    ("optimizer.lr=-1", r"optimizer\.lr=-1.*expected a value in \(0"),
    ("optimizer.lr=0", r"optimizer\.lr=0: expected"),
    ("optimizer.lr=fast", r"optimizer\.lr='fast': expected a number"),
    ("+optimizer.momentun=0.9", r"takes no argument 'momentun'"),
    ("batch_size=0", r"batch_size=0: expected"),
    ("seed=-1", r"seed=-1: expected"),
    ("budget.steps=0", r"budget\.steps=0: expected"),
    ("budget.steps=null", r"give one of the two"),
    ("budget.epochs=3", r"give one of the two"),
    ("target.shots=0", r"target\.shots=0: expected"),
    ("target.fraction=1.5", r"target\.fraction=1.5: expected"),
    ("target.test=1.0", r"target\.test=1.0: expected"),
    ("target.corruption=noise", r"a corrupted dataset is a source"),
    ("trainer.devices=0", r"trainer\.devices=0"),
    ("trainer.devices=-1", r"trainer\.devices=-1"),
    ("trainer.devices=900", r"trainer\.devices=900: this machine has \d+"),
    ("trainer.replica_check=never", r"trainer\.replica_check=never: expected epoch"),
    ("trainer.replica_check=0", r"trainer\.replica_check=0"),
    ("trainer.replica_check=true", r"trainer\.replica_check=True"),
    ("trainer.precision=bf16", r"trainer\.precision=bf16: no such choice \(nearest: .*bf16-mixed"),
    ("trainer.accelerator=cdua", r"no such choice \(nearest: cuda"),
    ("strategy.init=sauce", r"strategy\.init=sauce: no such choice \(nearest: source"),
    ("metric.name=accurracy", r"nearest: accuracy"),
    ("checkpoint.keep=lats", r"nearest: last"),
    ("target.images.alpha=dorp", r"nearest: drop"),
    ("name=a/b", r"it names a folder"),
    ("target=image_folder", r"target\.root.* must be set"),
    ("backbone=timm", r"backbone\.name must be set"),
    ("head._target_=transferlab.heads.linear.LinarHead", r"nearest: LinearHead"),
    ("head._target_=nowhere.Head", r"nowhere is not among the allowed packages"),
    ("+head.hiden=3", r"head\.hiden: .*takes no argument 'hiden'"),
    ("loss.label_smoothing=much", r"loss\.label_smoothing='much': expected float"),
    ("loss.class_weights=balance", r"loss\.class_weights='balance': expected"),
    ("scheduler.warmup=[1]", r"scheduler\.warmup"),
    ("+strategy.callbacks.odd=3", r"strategy\.callbacks\.odd: expected a node with _target_"),
    ("+tracker.odd=3", r"tracker\.odd: expected a node with _target_"),
]


@pytest.mark.parametrize(("override", "told"), WRONG, ids=[override for override, _ in WRONG])
def test_wrong_values_are_named(override: str, told: str, compose: Compose) -> None:
    with pytest.raises(UserError, match=told) as caught:
        check(compose(override))
    assert "\n" not in str(caught.value)


def test_shots_and_fraction_exclude_each_other(compose: Compose) -> None:
    with pytest.raises(UserError, match="give one of the two"):
        check(compose("target.shots=5", "target.fraction=0.1"))


def test_a_checkpoint_that_is_not_there_is_named(compose: Compose, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"source\.path=.*does not exist"):
        check(compose("source=checkpoint", f"source.path='{tmp_path / 'x.pt'}'"))


def test_a_strategys_own_errors_are_told(compose: Compose) -> None:
    with pytest.raises(UserError, match=r"layer_decay\.decay=1"):
        check(compose("strategy=layer_decay", "strategy.callbacks.layer_decay.decay=1.0"))


def test_checking_leaves_the_configuration_alone(compose: Compose) -> None:
    cfg = compose("budget.epochs=2", "budget.steps=null")
    before = OmegaConf.to_yaml(cfg)
    check(cfg)
    assert OmegaConf.to_yaml(cfg) == before


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        check_output(tmp_path / "file" / "outputs")
    check_output(tmp_path / "new" / "outputs")
    assert not list((tmp_path / "new" / "outputs").iterdir())


def test_errors_inside_a_constructor_belong_to_the_node() -> None:
    node = OmegaConf.create({"_target_": "transferlab.heads.linear.LinearHead"})
    with pytest.raises(UserError, match=r"LinearHead could not be built: TypeError"):
        build(node, in_features=2)
    flip = "transferlab.augmentations.flip.RandomHorizontalFlip"
    with pytest.raises(UserError, match=r"^augmentation flip: got probability=2"):
        build(OmegaConf.create({"_target_": flip, "probability": 2}))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optimiser.lr=1", r"unknown key 'optimiser'.*optimizer"),
        ("sede=3", r"unknown key 'sede'.*seed"),
        ("target.shot=3", r"unknown key 'target\.shot'.*target\.shots"),
        ("budget.step=3", r"unknown key 'budget\.step'.*budget\.steps"),
        ("seed=abc", r"seed: .*'abc'.*Integer. Give a whole number\."),
        ("batch_size=1.5", r"batch_size: .*1\.5"),
        ("target.shots=many", r"target\.shots: .*many"),
        ("trainer.channels_last=perhaps", r"trainer\.channels_last: .*perhaps"),
        ("strategy=fine_tun", r"strategy=fine_tun: no such choice \(nearest: fine_tune"),
        ("source=glyph", r"source=glyph: no such choice \(nearest: glyphs"),
        ("target=digit", r"target=digit: no such choice \(nearest: digits"),
        ("experiment=digts", r"experiment=digts: no such choice \(nearest: digits"),
        ("strateggy=fine_tune", r"strategy"),
        ("head.hidden=3", r"head\.hidden"),
    ],
)
def test_hydras_errors_become_one_line(override: str, told: str, compose: Compose) -> None:
    known = sorted({*keys(compose()), *group_names([config_folder()])})
    with pytest.raises((HydraException, OmegaConfBaseException)) as caught:
        compose(override)
    assert isinstance(caught.value, KNOWN)
    error = explain(caught.value, known)
    assert isinstance(error, UserError)
    assert re.search(told, str(error)), str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("text", ["fine_tune", "seed", "a=[1", "seed=1,,2"])
def test_what_is_no_override_is_named(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse([text])
    assert "\n" not in str(caught.value)


def test_nearest_names_a_few_or_lists() -> None:
    assert nearest("lenear", ["linear", "mlp", "cosine"]) == "nearest: linear"
    assert nearest("zzz", ["b", "a"]) == "valid: a, b"
    assert nearest("zzz", map(str, range(100, 150))).endswith("111, ...")
