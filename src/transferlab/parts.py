"""The parts of a model by the field's names: layer groups, norms, biases, patterns."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from transferlab.backbones.groups import Granularity, classified_ids, group_names, layer_ids
from transferlab.errors import UserError, nearest
from transferlab.schedule import Dropout, Norms, Selector

THIRDS = ("first third", "middle third", "last third")
WORDS = ("all", "head", "body", "norms", "biases", "adapters", "last N", "last N layers", *THIRDS)
_BIAS = re.compile(r"(.*_)?bias")  # q_bias and in_proj_bias of attention are some too
_LAST = re.compile(r"last (\d+)( layers)?")
_Mode = tuple[nn.Module, bool]
_NORMS = (_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class LayerGroup:
    """An ordered slice of a model.

    Attributes:
        name: of the module that holds most of it; ``head`` for the last.
        parameters: names.
    """

    name: str
    parameters: tuple[str, ...]


class Parts:
    """A model's parameters by the names that a strategy uses.

    Args:
        model: any module: with attributes ``backbone`` and ``head``, a timm model with its
            classifier, or a module around one of these (a LightningModule).
        granularity: ``stages`` or ``blocks``, the unit of layer groups.

    Attributes:
        groups: stem first, the head last; every parameter is in one.

    Raises:
        UserError: no head can be told from the body.
    """

    def __init__(self, model: nn.Module, granularity: Granularity = "stages") -> None:
        self.model, self.granularity = model, granularity
        self.parameters = dict(model.named_parameters())
        ids, head = _numbered(model, granularity)
        names = [*group_names({n: i for n, i in ids.items() if i < head}, head), "head"]
        members: list[list[str]] = [[] for _ in names]
        for name, group in ids.items():
            members[group].append(name)
        self.groups = [LayerGroup(n, tuple(m)) for n, m in zip(names, members, strict=True)]
        self.group_of = ids
        self._within = _parameters_within(model)

    @property
    def head(self) -> frozenset[str]:
        """Names of the head's parameters."""
        return frozenset(self.groups[-1].parameters)

    @property
    def body(self) -> frozenset[str]:
        """Names of all other parameters."""
        return frozenset(self.parameters) - self.head

    def select(self, selector: Selector, where: str) -> frozenset[str]:
        """Return the names of the parameters that a selector means.

        Args:
            selector: ``all``, ``head``, ``body``, ``norms`` and ``biases`` (of the body),
                ``adapters``; a layer group's name or number (-1 is the head); ``last N`` layer
                groups, the head counted; ``last N layers`` of the body (modules without
                children, or with parameters of their own, in their order); ``first third``,
                ``middle third``, ``last third`` of the body's groups; a parameter's or module's
                path; a pattern with ``*``, or ``re:`` and a regular expression for whole
                parameter names.
            where: names the place for the error.

        Raises:
            UserError: it matches nothing.
        """
        found = self._found(selector)
        if not found:
            known = [*WORDS, *(group.name for group in self.groups)]
            raise UserError(
                f"{where}: {selector!r} matches no parameter ({nearest(str(selector), known)}; "
                f"layer groups: {', '.join(group.name for group in self.groups)})."
            )
        return frozenset(found)

    def modes(self, trained: frozenset[str], norms: Norms, dropout: Dropout) -> list[_Mode]:
        """Return for every module inside the model whether it is in train mode.

        A module trains if all parameters in it do; one without any (dropout, pooling) goes with
        the closest module around it that has some. What an adapter added always trains.
        """
        modes = []
        adapters = {id(m) for added in _added(self.model) for m in added.modules()}
        body = self.body
        for path, module in self.model.named_modules():
            within = self._within[path]
            if path and within:  # "" is the model itself: whoever calls train() on it decides
                mode = within <= trained or id(module) in adapters
                if within & body or not within:
                    mode = _by_policy(module, mode, norms, dropout)
                modes.append((module, mode))
        return modes

    def affine(self) -> frozenset[str]:
        """Names of the weights and biases of the body's norm layers."""
        return self._found("norms") & self.body

    def _found(self, selector: Selector) -> frozenset[str]:
        if isinstance(selector, int):
            inside = -len(self.groups) <= selector < len(self.groups)
            return frozenset(self.groups[selector].parameters if inside else ())
        named = {"all": frozenset(self.parameters), "head": self.head, "body": self.body}
        if selector in named:
            return named[selector]
        if selector == "norms":
            owners = {p for p, m in self.model.named_modules() if is_norm(m)}
            return frozenset(n for n in self.body if n.rpartition(".")[0] in owners)
        if selector == "biases":
            return frozenset(n for n in self.body if _BIAS.fullmatch(n.rpartition(".")[2]))
        if selector == "adapters":
            inside_ids = {id(p) for m in _added(self.model) for p in m.parameters()}
            return frozenset(n for n, p in self.parameters.items() if id(p) in inside_ids)
        if selector in THIRDS:
            bodies = np.array_split(np.arange(len(self.groups) - 1), 3)[THIRDS.index(selector)]
            return frozenset(n for i in bodies for n in self.groups[int(i)].parameters)
        last = _LAST.fullmatch(selector)
        if last:
            return self._last(int(last[1]), last[2] is not None)
        return self._matching(selector)

    def _last(self, count: int, layers: bool) -> frozenset[str]:
        if not layers:
            chosen = self.groups[-count:] if 0 < count <= len(self.groups) else []
            return frozenset(n for group in chosen for n in group.parameters)
        leaves = [
            path
            for path, module in self.model.named_modules()
            if path and _is_layer(module) and not self._in_head(path)
        ]
        chosen_leaves = leaves[-count:] if 0 < count <= len(leaves) else []
        return frozenset(n for n in self.body if n.rpartition(".")[0] in set(chosen_leaves))

    def _in_head(self, path: str) -> bool:
        within = self._within[path]
        return bool(within) and within <= self.head

    def _matching(self, selector: str) -> frozenset[str]:
        for group in self.groups:
            if selector == group.name:
                return frozenset(group.parameters)
        if selector.startswith("re:"):
            try:
                pattern = re.compile(selector[3:])
            except re.error as error:
                raise UserError(f"{selector!r} is no regular expression ({error}).") from error
            return frozenset(n for n in self.parameters if pattern.fullmatch(n))
        if any(character in selector for character in "*?["):
            return frozenset(n for n in self.parameters if fnmatchcase(n, selector))
        paths = (selector, f"backbone.{selector}")
        return frozenset(
            n for n in self.parameters if any(n == p or n.startswith(f"{p}.") for p in paths)
        )


def _is_layer(module: nn.Module) -> bool:
    own = next(module.parameters(recurse=False), None) is not None
    return own or next(module.children(), None) is None


def is_norm(module: nn.Module) -> bool:
    """Say whether a module normalises: torch's kinds, timm's, and what is called so."""
    if isinstance(module, _NORMS):
        return True
    named = re.search(r"Norm(Act)?(1d|2d|3d)?$", type(module).__name__, re.IGNORECASE)
    return bool(named) and all(p.ndim <= 1 for p in module.parameters())


def is_dropout(module: nn.Module) -> bool:
    """Say whether a module drops units or paths at random."""
    return isinstance(module, _DropoutNd) or type(module).__name__.startswith("Drop")


def _by_policy(module: nn.Module, mode: bool, norms: Norms, dropout: Dropout) -> bool:
    if is_norm(module) and norms != "follow":
        return norms in ("adapt_statistics", "train")
    if is_dropout(module) and dropout != "follow":
        return dropout == "train"
    return mode


def _added(model: nn.Module) -> Sequence[nn.Module]:
    return [m for module in model.modules() for m in getattr(module, "adapter_modules", ())]


def _parameters_within(model: nn.Module) -> dict[str, frozenset[str]]:
    """Map every module's path to the parameters in it, or in the closest module around it."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    tied = [(n, first[id(p)]) for n, p in model.named_parameters(remove_duplicate=False)]
    within: dict[str, frozenset[str]] = {}
    for path, _ in model.named_modules():
        inside = frozenset(n for own, n in tied if not path or own.startswith(f"{path}."))
        within[path] = inside or within[path.rpartition(".")[0]]
    return within


def _numbered(model: nn.Module, granularity: Granularity) -> tuple[dict[str, int], int]:
    """Number all parameters; names are relative to the model."""
    backbone, head = getattr(model, "backbone", None), getattr(model, "head", None)
    if isinstance(backbone, nn.Module) and isinstance(head, nn.Module):
        ids, top = layer_ids(backbone, granularity)
        numbered = {f"backbone.{name}": min(i, top - 1) for name, i in ids.items()}
        return {name: numbered.get(name, top) for name, _ in model.named_parameters()}, top
    classified = classified_ids(model, granularity)
    if classified is not None:
        return classified
    inner = [
        (name, child)
        for name, child in model.named_children()
        if next(child.parameters(), None) is not None
    ]
    if len(inner) == 1:
        ids, top = _numbered(inner[0][1], granularity)
        return {f"{inner[0][0]}.{name}": group for name, group in ids.items()}, top
    raise UserError(
        f"{type(model).__name__}: no head can be told from the body. Give the module the "
        "attributes backbone and head, or use a timm model with its classifier."
    )


def decay_ids(parts: Parts) -> dict[str, int]:
    """Number parameters for layer-wise rates: a final norm that timm counts to the head is its.

    Unfreezing keeps such a norm with the body's last group instead, whose output it normalises.
    """
    model: Any = parts.model
    if not isinstance(getattr(model, "backbone", None), nn.Module):
        return parts.group_of
    ids, head = layer_ids(cast(nn.Module, model.backbone), parts.granularity)
    own = {f"backbone.{name}": group for name, group in ids.items()}
    return {name: own.get(name, head) for name in parts.parameters}
