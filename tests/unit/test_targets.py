"""Code that a configuration names is run only where the user has said whose."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from transferlab.checks import check
from transferlab.errors import UserError
from transferlab.planning import plan_run
from transferlab.targets import require_allowed

Compose = Callable[..., DictConfig]

REFUSED = {
    "the standard library": ("os.system", "standard library"),
    "a builtin": ("builtins.eval", "standard library"),
    "a package that nobody named": ("scipy.io.loadmat", r"add allowed_packages=\[scipy\]"),
    "Hydra's own tricks": ("hydra.utils.get_method", "hydra is not among"),
    "a module that torch carries along": ("torch.os.system", "standard library"),
    "one further down": ("torch.hub.os.system", "standard library"),
    "a function that loads code": ("torch.hub.load", "not a part of a run"),
    "a pickle": ("torch.load", "not a part of a run"),
    "a class that starts a process": (
        "torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler",
        "not a part of a run",
    ),
    "a foreign class that torch imports": ("torch.hub.Path", "standard library"),
    "timm's reader of pickles": ("timm.models.load_state_dict", "not a part of a run"),
    "torchvision's other functions": ("torchvision.io.read_file", "not a part of a run"),
    "Lightning's own command line": ("lightning.pytorch.cli.LightningCLI", "not a part of a run"),
    "our own functions that write": ("transferlab.records.write_text", "not a part of a run"),
    "that remove": ("transferlab.checkpoints.remove_checkpoints", "not a part of a run"),
    "that write data": ("transferlab.datasets.npy.write_images", "not a part of a run"),
    "our own imports": ("transferlab.run.os.system", "standard library"),
    "no name": ("", "not among"),
}
BUILT = (
    "transferlab.heads.linear.LinearHead", "transferlab.optim.warmup_cosine",
    "torch.optim.AdamW", "torch.optim.lr_scheduler.MultiStepLR", "torch.nn.Identity",
    "torchvision.models.alexnet", "torchvision.transforms.v2.RandAugment",
    "torchmetrics.classification.MulticlassF1Score", "timm.optim.Lamb",
)  # fmt: skip


def at(target: object, where: str = "head", **more: object) -> DictConfig:
    """A configuration in which something lies deep inside the node called ``where``."""
    node = {where: {"callbacks": [{"deep": {"_target_": target, "_partial_": True}}]}}
    return OmegaConf.create(node | more)


@pytest.mark.parametrize(("target", "told"), REFUSED.values(), ids=list(REFUSED))
def test_code_of_others_is_refused_wherever_it_stands(target: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        require_allowed(at(target))
    assert "\n" not in str(caught.value)
    assert f"head.callbacks[0].deep._target_={target}" in str(caught.value)


@pytest.mark.parametrize("target", BUILT)
def test_the_parts_of_a_run_are_not(target: str) -> None:
    require_allowed(at(target))


def test_a_target_is_a_name() -> None:
    with pytest.raises(UserError, match="expected the dotted name"):
        require_allowed(at(3))


@pytest.fixture
def loud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of a user's whose import leaves a file behind."""
    (tmp_path / "loud_parts.py").write_text(
        "import os, pathlib\nfrom os import system\nfrom torch.hub import load\n"
        f"pathlib.Path({str(tmp_path / 'imported')!r}).touch()\n"
        "class Head: pass\ndef head(): return Head()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "loud_parts", raising=False)
    return tmp_path / "imported"


def test_nothing_is_imported_before_all_is_allowed(loud: Path) -> None:
    cfg = at("loud_parts.Head", other={"_target_": "elsewhere.Head"})
    with pytest.raises(UserError, match="loud_parts"):
        require_allowed(cfg)
    with pytest.raises(UserError, match="elsewhere"):
        require_allowed(cfg, ["loud_parts"])
    assert not loud.exists()
    require_allowed(at("loud_parts.Head", allowed_packages=["loud_parts"]))
    assert loud.exists()


def test_a_package_that_is_allowed_lends_its_name_to_no_other(loud: Path) -> None:
    for target in ("loud_parts.Head", "loud_parts.head"):
        require_allowed(at(target), ["loud_parts"])
    for target in ("loud_parts.system", "loud_parts.os.system", "loud_parts.pathlib.Path"):
        with pytest.raises(UserError, match="standard library"):
            require_allowed(at(target), ["loud_parts"])
    with pytest.raises(UserError, match="not a part of a run"):
        require_allowed(at("loud_parts.load"), ["loud_parts"])


@pytest.mark.parametrize(
    ("name", "told"), [("os", "standard library"), ("my.parts", "no name"), ("", "no name")]
)
def test_what_can_be_allowed_is_a_package_of_ones_own(name: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        require_allowed(OmegaConf.create({"allowed_packages": [name]}))


@pytest.mark.parametrize(
    "where", ["head", "loss", "target.dataset", "+strategy.callbacks.mine", "+tracker.mine"]
)
def test_checks_and_plans_both_refuse(where: str, compose: Compose) -> None:
    cfg = compose(f"{where}._target_=os.system")
    for refuse in (check, plan_run):
        with pytest.raises(UserError, match=r"_target_=os\.system: a configuration never runs"):
            refuse(cfg)
