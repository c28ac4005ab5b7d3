"""Layer groups: a model's parameters numbered in ordered slices, stem first, the head last."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal

import timm
import torch
from timm.models import group_parameters
from torch import nn

Granularity = Literal["stages", "blocks"]
_WRAPPED = ".base_layer"  # what peft inserts where it wraps a layer


def layer_ids(backbone: nn.Module, granularity: Granularity) -> tuple[dict[str, int], int]:
    """Give every parameter of a backbone the number of its layer group.

    For timm's models the numbers are timm's own, taken from the model *with* a classifier, so
    that parameters which share the classifier's group (a final norm inside the head) are numbered
    as published ladders number them, although this backbone has no classifier. Any other module
    is cut at its children: ``stages`` are its direct children with parameters, ``blocks`` also
    cut those that are sequences.

    Args:
        backbone: a model without classifier.
        granularity: ``blocks`` for fine groups (ResNet-50 18 with the head, ViT-B 14),
            ``stages`` for coarse ones.

    Returns:
        parameter name -> group in [0, head], and the head's own number.
    """
    architecture = (getattr(backbone, "pretrained_cfg", None) or {}).get("architecture")
    coarse = granularity == "stages"
    known = _reference_ids(architecture, coarse) if architecture else None
    if known and not _as_deep(backbone, known):  # made with other arguments than timm's own
        known = _matched(backbone, coarse)
    reference, head = known or _child_ids(backbone, granularity)
    top = max(head - 1, 0)
    return {name: _of(name, reference, top) for name, _ in backbone.named_parameters()}, head


def classified_ids(model: Any, granularity: Granularity) -> tuple[dict[str, int], int] | None:
    """Number the parameters of a timm model that has its classifier; None for any other module."""
    if not hasattr(model, "group_matcher") or not getattr(model, "pretrained_cfg", None):
        return None
    return _matched(model, granularity == "stages")


def group_names(ids: dict[str, int], groups: int) -> list[str]:
    """Name groups after the module that holds most of each: ``stem``, ``layer1``, ``blocks.0``.

    The path is the shortest one that no other group shares, below the module that holds all.
    """
    depth = _shared_depth(list(ids))
    held: dict[str, Counter[int]] = defaultdict(Counter)
    for parameter, group in ids.items():
        for path in _paths(parameter, depth):
            held[path][group] += 1
    names: list[str] = []
    for index in range(groups):
        size = sum(group == index for group in ids.values())
        needed = size if index == 0 else size // 2 + 1  # a stem is named so unless it is one module
        fit = [
            path for path, counts in held.items() if counts[index] >= needed and len(counts) == 1
        ]
        path = min(fit, key=lambda path: path.count("."), default="")
        name = path.split(".", depth)[-1] if path else ("stem" if index == 0 else f"group{index}")
        names.append(f"{name}#{index}" if name in names else name)
    return names


def _shared_depth(parameters: list[str]) -> int:
    """Count the module names that all paths begin with, as ``backbone`` or ``model.backbone``."""
    modules = [name.split(".")[:-1] for name in parameters]
    depth = 0
    while modules and all(len(m) > depth + 1 and m[depth] == modules[0][depth] for m in modules):
        depth += 1
    # a top-level parameter (a class token) ends the shared path early
    tops = {name.split(".")[0] for name in parameters}
    return max(depth, 1) if len(tops) == 1 else depth


def _paths(parameter: str, depth: int) -> list[str]:
    parts = parameter.split(".")[:-1]
    return [".".join(parts[: end + 1]) for end in range(depth, len(parts))]


def _of(name: str, reference: dict[str, int], top: int) -> int:
    """Return a parameter's number; one that an adapter added goes with the layer around it."""
    plain = name.replace(_WRAPPED, "")
    path = plain
    while path:
        if path in reference:
            return reference[path]
        inside = [group for known, group in reference.items() if known.startswith(f"{path}.")]
        if inside:
            return max(inside)
        path = path.rpartition(".")[0]
    return top  # what the classifier-free model alone has stands at the top of the body


@lru_cache(maxsize=32)
def _reference_ids(name: str, coarse: bool) -> tuple[dict[str, int], int] | None:
    with torch.device("meta"):
        model: Any = timm.create_model(name, pretrained=False, num_classes=2)
    return _matched(model, coarse) if hasattr(model, "group_matcher") else None


def _as_deep(backbone: nn.Module, known: tuple[dict[str, int], int]) -> bool:
    """Say whether a backbone has the same numbered modules as its reference, not fewer or more."""
    reference, head = known
    names = [name.replace(_WRAPPED, "") for name, _ in backbone.named_parameters()]
    there = {path for name in reference for path in _numbered(name)}
    lists = {path.rpartition(".")[0] for path in there}
    own = {path for name in names for path in _numbered(name)}
    more = any(path not in there and path.rpartition(".")[0] in lists for path in own)
    fewer = set(range(head)) - {_of(name, reference, head) for name in names}
    return not (more or fewer)


def _numbered(name: str) -> list[str]:
    """Return the paths in a parameter's name that end in a number, such as ``blocks.3``."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end, part in enumerate(parts) if part.isdigit()]


def _matched(model: Any, coarse: bool) -> tuple[dict[str, int], int]:
    try:
        matcher = model.group_matcher(coarse=coarse)
    except AssertionError:  # timm 1.0 has no coarse one of RDNet
        matcher = model.group_matcher(coarse=False)
    ids = {
        parameter: int(group)
        for parameter, group in group_parameters(model, matcher, reverse=True).items()
    }
    classifiers = model.pretrained_cfg.get("classifier") or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
    own = [group for key, group in ids.items() if key.startswith(tuple(classifiers))]
    return ids, max(own) if classifiers and own else max(ids.values()) + 1


def _child_ids(module: nn.Module, granularity: Granularity) -> tuple[dict[str, int], int]:
    paths = list(_slices(module, granularity))
    ids = {}
    for name, _ in module.named_parameters():
        holding = [i for i, path in enumerate(paths) if name == path or name.startswith(f"{path}.")]
        ids[name] = holding[0] if holding else 0
    used = {group: rank for rank, group in enumerate(sorted(set(ids.values())))}
    return {name: used[group] for name, group in ids.items()}, len(used)


def _slices(module: nn.Module, granularity: Granularity, prefix: str = "") -> Iterable[str]:
    children = [(n, c) for n, c in module.named_children() if _has_parameters(c)]
    if len(children) == 1 and _has_children(children[0][1]):
        yield from _slices(children[0][1], granularity, f"{prefix}{children[0][0]}.")
        return
    for name, child in children:
        sequence = isinstance(child, nn.Sequential | nn.ModuleList)
        if granularity == "blocks" and sequence and _has_children(child):
            yield from _slices(child, granularity, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _has_children(module: nn.Module) -> bool:
    return any(_has_parameters(child) for child in module.children())
