"""What a module's output follows from, as a hash: its weights, its settings and its code."""

import functools
import hashlib
import inspect
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transferlab.records import sha256_file

RELEASED = ("builtins", "torch", "timm", "torchvision", "transferlab")
"""Packages whose code has a version, which is not hashed here."""
_OWN = frozenset(vars(nn.Module())) - {"_forward_hooks", "_forward_pre_hooks"}
"""What torch keeps in every module; of that hooks alone could change an output."""


def fingerprint(module: nn.Module) -> str:
    """Hash all that a module's output in its present mode follows from, but for its input.

    These are the parameters and buffers, the classes of all its parts with the code of those that
    no release stands for, and what else the parts keep: numbers, names, functions. Where something
    of an unknown kind is kept, two processes find different hashes: that an equality is missed
    costs time, and that one is claimed would cost the truth.
    """
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        kept = {key: _said(value) for key, value in vars(part).items() if key not in _OWN}
        facts = (name, _class(type(part)), part.training, sorted(kept.items()))
        digest.update(repr(facts).encode())
        for key, value in [*part._parameters.items(), *part._buffers.items()]:
            if value is not None:
                digest.update(repr((key, value.dtype, tuple(value.shape))).encode())
                digest.update(_bytes(value))
    return digest.hexdigest()


def _bytes(value: Tensor) -> Any:
    flat = value.detach().to("cpu").contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()


def _class(kind: type) -> str:
    """Name a class; where no release stands for its code, with the hash of its file."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__.split(".")[0] in RELEASED:
        return name
    try:
        return f"{name} {_hash_of(inspect.getfile(kind))}"
    except (OSError, TypeError):  # typed in, or built while the program runs
        return f"{name} {id(kind)}"


@functools.lru_cache
def _hash_of(path: str) -> str:
    return sha256_file(Path(path))


def _said(value: Any) -> object:
    """Reduce what a module keeps to something whose repr is the same in every process."""
    for kinds, reduced in _RULES:
        if isinstance(value, kinds):
            return reduced(value)
    return repr(value)


def _function(value: Any) -> str:
    where = f"{value.__module__}.{value.__qualname__}"
    return repr(value) if "<" in where else where  # what is made in a function has an address


def _tensor(value: Tensor) -> object:
    return str(value.dtype), tuple(value.shape), hashlib.sha256(_bytes(value)).hexdigest()


_RULES: tuple[tuple[Any, Callable[[Any], object]], ...] = (
    (bool | int | float | complex | str | bytes | torch.dtype | torch.device | None, lambda v: v),
    (Tensor, _tensor),
    (nn.Module, fingerprint),  # in a list or a dict, where torch does not see it
    (list | tuple, lambda v: [type(v).__name__, *map(_said, v)]),
    (set | frozenset, lambda v: sorted(repr(_said(one)) for one in v)),
    (dict, lambda v: [(_said(key), _said(one)) for key, one in v.items()]),
    (functools.partial, lambda v: _said((v.func, v.args, v.keywords))),
    (type, _class),
    (types.FunctionType | types.BuiltinFunctionType, _function),
)
