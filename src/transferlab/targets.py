"""What a ``_target_`` may name: code is run only where the user has said whose.

A configuration names code, and whoever can write a line of it could run any: ``os.system`` is as
easy to name as a head. So every ``_target_`` is checked before the first one is imported, since an
import runs code too, and what the name leads to is checked again, since packages carry others
along (``torch.os.system``).
"""

import importlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from inspect import isclass, isfunction
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from transferlab.errors import UserError, nearest

PACKAGES = ("transferlab", "torch", "torchvision", "torchmetrics", "lightning", "timm", "peft")
"""Packages whose parts every configuration may build; ``allowed_packages`` adds to them."""
PARTS = (
    "augmentations", "backbones", "callbacks", "curves", "datasets", "heads", "losses", "optim",
    "trackers",
)  # fmt: skip
"""Our own rooms that hold parts; classes alone, but for the functions of ``optim``."""
BASES = {
    "torch.nn.modules.module.Module",
    "torch.optim.optimizer.Optimizer",
    "torch.optim.lr_scheduler.LRScheduler",
    "lightning.pytorch.callbacks.callback.Callback",
}
"""What a class of another allowed package derives from; others start processes or open files."""


def require_allowed(cfg: DictConfig, packages: Sequence[str] | None = None) -> None:
    """Refuse a configuration that names code of packages that nobody allowed.

    Args:
        cfg: a configuration, whoever wrote it.
        packages: allowed besides :data:`PACKAGES`; None takes the configuration's own
            ``allowed_packages``, where the user is who wrote it.

    Raises:
        UserError: names the key, what came in and how to allow it.
    """
    added = list((cfg.get("allowed_packages") or ()) if packages is None else packages)
    _check_packages(added)
    allowed = (*PACKAGES, *map(str, added))
    found = [(path, _name(path, node)) for path, node in target_nodes(cfg)]
    for path, target in found:
        _check_root(path, target, target.split(".")[0], allowed)
    for path, target in found:
        _check_found(path, target, allowed)


def target_nodes(node: Any, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Yield the dotted path of every node with ``_target_`` and the node, the outer ones first."""
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
        if "_target_" in node:
            yield path, node
        for key in map(str, node):
            if not OmegaConf.is_missing(node, key):
                yield from target_nodes(node._get_node(key), f"{path}.{key}".lstrip("."))
    elif isinstance(node, ListConfig) and not node._is_none():
        for index in range(len(node)):
            yield from target_nodes(node._get_node(index), f"{path}[{index}]")


def _check_packages(packages: Iterable[object]) -> None:
    for name in map(str, packages):
        if not name.isidentifier():
            raise UserError(
                f"allowed_packages: {name!r} is no name of a package. Give the first part of the "
                "dotted name, as in allowed_packages=[my_package]."
            )
        if name in sys.stdlib_module_names:
            raise UserError(
                f"allowed_packages: {name} is of Python's standard library, which no configuration "
                "may run. Write a class around it in a package of yours, and allow that one."
            )


def _name(path: str, node: DictConfig) -> str:
    target = node["_target_"]
    if not isinstance(target, str):
        raise UserError(f"{path}._target_={target!r}: expected the dotted name of a class.")
    return target


def _check_root(path: str, target: str, root: str, allowed: Sequence[str]) -> None:
    if root in allowed:
        return
    if root in sys.stdlib_module_names:
        raise UserError(
            f"{path}._target_={target}: a configuration never runs what is of Python's standard "
            f"library ({root}). Name a class of a package in allowed_packages."
        )
    raise UserError(
        f"{path}._target_={target}: {root} is not among the allowed packages "
        f"({nearest(root, allowed)}). If you trust its code, add allowed_packages=[{root}]."
    )


def _check_found(path: str, target: str, allowed: Sequence[str]) -> None:
    """Check what a name leads to; one that leads nowhere is told where it is used."""
    parts = target.split(".")
    try:
        found: Any = importlib.import_module(parts[0])
        for count, part in enumerate(parts[1:], start=2):
            if not hasattr(found, part) and isinstance(found, ModuleType):
                importlib.import_module(".".join(parts[:count]))
            found = getattr(found, part)
            if isinstance(found, ModuleType):
                _check_root(path, target, found.__name__.split(".")[0], allowed)
    except UserError:
        raise
    except Exception:  # whatever the import of a named module raises
        return
    home = str(getattr(found, "__module__", None) or "")
    if home:
        _check_root(path, target, home.split(".")[0], allowed)
    if {parts[0], home.split(".")[0]} & set(PACKAGES) and not _is_part(found, home):
        raise UserError(
            f"{path}._target_={target}: not a part of a run. Of {parts[0]} a configuration builds "
            f"{_KINDS.get(parts[0], 'modules, optimizers, schedulers and callbacks')} alone; give "
            "one of them, or a class of a package of yours in allowed_packages."
        )


def _is_part(found: Any, home: str) -> bool:
    """Say whether an object of an allowed package is of a kind that runs are made of."""
    package, _, rest = home.partition(".")
    if package == "transferlab":
        room = rest.partition(".")[0]
        return room in PARTS and (isclass(found) or (room == "optim" and isfunction(found)))
    if isclass(found):
        return bool(BASES & {f"{base.__module__}.{base.__qualname__}" for base in found.__mro__})
    if package == "torchvision" and isfunction(found):
        from torchvision.models import list_models

        return found.__name__ in list_models()
    # a package of the user's that one of ours lets through: its own functions are its affair
    return package not in ("", *PACKAGES) and callable(found)


_KINDS = {
    "transferlab": f"the classes of its {', '.join(PARTS[:-1])} and {PARTS[-1]}",
    "torchvision": "modules, and models by their functions",
}
