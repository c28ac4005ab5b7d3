"""Every YAML of every group keeps its promises; a new one is tested the moment it exists."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, open_dict

from transferlab.auto_depth import fit
from transferlab.checks import check
from transferlab.config import config_folder, register
from transferlab.errors import UserError
from transferlab.fitting import Fit, build_model
from transferlab.planning import Plan
from transferlab.source_parts import expand_parts
from transferlab.study.declaration import declare
from transferlab.targets import PACKAGES

Compose = Callable[..., DictConfig]
MakePlan = Callable[..., Plan]

CONF = config_folder()
ALLOWED = (*PACKAGES, "???")
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
SLOW = ("mobilenetv2_100", "test_efficientnet", "convnext_atto", "vit_tiny_patch16_224")
BACKBONES = ("test_resnet", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW))
VALUES = {
    "root": "'{folder}'",
    "path": "'{file}'",
    "dataset.path": "'{file}'",
    "dataset.name": "CIFAR10",
    "callbacks.soup.runs": "['{folder}']",
    "name": "resnet10t",
    "parts": "[glyphs,noise]",
    "module._target_": "torchvision.models.squeezenet1_1",
}
"""What the tests answer where a YAML says ``???``."""


def choices(group: str) -> list[str]:
    """The YAMLs of a group that people choose."""
    files = sorted((CONF / group).rglob("*.yaml"))
    names = [path.relative_to(CONF / group).with_suffix("").as_posix() for path in files]
    return [name for name in names if not name.startswith("_")]


CHOICES = [
    (group, name) for group in GROUPS if group != "experiment" for name in choices(group)
]  # fmt: skip


def mandatory(group: str, name: str) -> list[str]:
    """The keys that a YAML, or the one it starts from, leaves to the user."""
    node: Any = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    keys = list(_open_keys(node, ""))
    for default in node.get("defaults", []):
        if isinstance(default, dict) and "/target@_here_" in default:
            keys += mandatory("target", default["/target@_here_"])
    return keys


def _open_keys(node: Any, prefix: str) -> Iterator[str]:
    for key, value in node.items():
        if value == "???":
            yield f"{prefix}{key}"
        elif isinstance(value, dict):
            yield from _open_keys(value, f"{prefix}{key}.")


def filled(group: str, name: str, folder: Path) -> list[str]:
    """The overrides that choose a YAML and answer what it asks."""
    (folder / "file.csv").touch()
    overrides = [f"{group}={name}"]
    for key in mandatory(group, name):
        assert key in VALUES, f"{group}/{name}.yaml asks for {key}: say in VALUES what to answer"
        value = VALUES[key].format(folder=folder, file=folder / "file.csv")
        overrides.append(f"{group}.{key}={value}")
    return overrides


def targets(node: Any) -> Iterator[dict[Any, Any]]:
    """Every mapping with ``_target_`` in a configuration."""
    if isinstance(node, dict | list):
        if isinstance(node, dict) and "_target_" in node:
            yield node
        for value in node.values() if isinstance(node, dict) else node:
            yield from targets(value)


def test_the_groups_are_the_ones_that_are_promised() -> None:
    promised = (
        *("source", "target", "backbone", "head", "strategy", "augmentation", "optimizer"),
        *("scheduler", "loss", "metric", "trainer", "tracker", "experiment"),
    )
    assert set(GROUPS) >= set(promised)
    assert all(choices(group) for group in GROUPS), "a group is empty"


@pytest.mark.parametrize(("group", "name"), CHOICES, ids=lambda value: str(value))
def test_yaml_composes_and_passes_the_checks(
    group: str, name: str, compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # tracker=mlflow needs one
    cfg = compose(*filled(group, name, tmp_path))
    if (group, name) == ("trainer", "gpu") and not torch.cuda.is_available():
        with pytest.raises(UserError, match="this machine has none"):
            check(cfg)
        return
    check(cfg)
    for node in targets(OmegaConf.to_container(cfg)):
        where = str(node["_target_"])
        assert where.split(".")[0] in ALLOWED
        arguments = [str(key) for key in node if not str(key).startswith("_")]
        inspect.signature(get_object(where)).bind_partial(**dict.fromkeys(arguments))


@pytest.mark.parametrize(
    ("group", "name"), [choice for choice in CHOICES if mandatory(*choice)], ids=lambda value: value
)
def test_what_a_yaml_leaves_open_is_asked_for_by_its_key(
    group: str, name: str, compose: Compose
) -> None:
    with pytest.raises(UserError) as caught:
        check(compose(f"{group}={name}"))
    assert any(f"{group}.{key}" in str(caught.value) for key in mandatory(group, name))


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.name)
def test_yaml_targets_only_packages_that_are_allowed(path: Path) -> None:
    for node in targets(OmegaConf.to_container(OmegaConf.load(path))):
        assert str(node["_target_"]).split(".")[0] in ALLOWED


def test_every_target_can_be_a_source() -> None:
    assert set(choices("target")) <= set(choices("source"))


@pytest.mark.parametrize("name", choices("experiment"))
def test_every_arm_of_an_experiment_composes_and_passes_the_checks(
    name: str, tmp_path: Path
) -> None:
    register()
    GlobalHydra.instance().clear()
    fixed = [f"experiment={name}", f"data_root='{tmp_path}'"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        study = hydra_compose("run", overrides=fixed)
        if study.target.dataset.get("root", "") is None:  # the user's own folder
            fixed.append(f"target.root='{tmp_path}'")
        declaration = declare(study, [])
        assert declaration.arms
        assert declaration.cells
        for arm in declaration.arms:
            overrides = [*fixed, *declaration.cells[0].overrides, *arm.overrides]
            cfg = hydra_compose("run", overrides=overrides)
            expand_parts(cfg, GlobalHydra.instance().config_loader())
            with open_dict(cfg):
                cfg.study = None
            OmegaConf.resolve(cfg)
            check(cfg)


def trained(plan: Plan, folder: Path) -> Fit:
    """Fit a plan's model for its few steps; the head must move and stay finite."""
    data = plan.data
    before = build_model(plan.cfg, len(data.store.classes), data.preprocessing.size)
    done = fit(plan, None, folder, [])
    # a head that nothing trains is fitted in closed form, without a step
    steps = plan.cfg.budget.steps if getattr(before.head, "gradient", True) else 0
    assert done.trainer.global_step == steps
    after = done.module.model.head.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert any(not torch.equal(before.head.state_dict()[name], after[name]) for name in after)
    assert [point["step"] for point in done.history.curve] == [steps]
    return done


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", choices("head"))
def test_head_trains_on_every_kind_of_backbone(
    head: str, backbone: str, make_plan: MakePlan, tmp_path: Path
) -> None:
    timm = ["backbone=timm", f"backbone.name={backbone}", "backbone.image_size=32"]
    overrides = [f"head={head}", *timm]
    trained(make_plan(*overrides, "strategy=feature_extraction"), tmp_path)


PARTS = [
    (group, name)
    for group in ("augmentation", "loss", "optimizer", "scheduler")
    for name in choices(group)
]


@pytest.mark.parametrize(("group", "name"), PARTS, ids=lambda value: str(value))
def test_part_trains(group: str, name: str, make_plan: MakePlan, tmp_path: Path) -> None:
    trained(make_plan(f"{group}={name}"), tmp_path)
