"""A model cut in two: the part in front that computes the same at every step, and the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor, fx, nn

from transferlab.fingerprint import fingerprint
from transferlab.forward_graph import Followed, NoCutError
from transferlab.model import TransferModel
from transferlab.phase_plan import PhaseState
from transferlab.records import sha256_record

Values = tuple[Tensor, ...]
RANDOM = ("dropout", "rand", "bernoulli", "multinomial", "drop_path")
"""In the names of functions that draw numbers."""


@dataclass(frozen=True)
class Moving:
    """What of a model changes while it trains, by identity.

    Attributes:
        parameters: that train.
        modules: that are in train mode.
    """

    parameters: frozenset[int]
    modules: frozenset[int]

    @classmethod
    def now(cls, model: nn.Module) -> Self:
        """Return what moves in a model as it is."""
        return cls(
            frozenset(id(p) for p in model.parameters() if p.requires_grad),
            frozenset(id(m) for m in model.modules() if m.training),
        )

    @classmethod
    def then(cls, model: nn.Module, state: PhaseState) -> Self:
        """Return what moves in a phase to come."""
        return cls(
            frozenset(id(p) for name, p in model.named_parameters() if name in state.trained),
            frozenset(id(module) for module, mode in state.modes if mode),
        )

    def touches(self, module: nn.Module) -> bool:
        """Say whether anything of a module moves."""
        own = {id(p) for p in module.parameters()}, {id(m) for m in module.modules()}
        return not (self.parameters.isdisjoint(own[0]) and self.modules.isdisjoint(own[1]))


class Cut:
    """A model's features in two steps: ``after(before(images))`` is ``model.features(images)``.

    What is fixed: whatever follows from the images through modules that are in eval mode and
    have no parameter that trains, and through plain functions. Parameters are the model's own, so
    what trains behind the cut trains in the model.

    Where the whole backbone is fixed, as it also is in a model in eval mode that is frozen, it is
    taken whole: nothing need be followed.

    Args:
        model: in train mode, its frozen modules held in eval mode; or in eval mode. Where several
            cuts are made of it, it is followed once.
        moving: what of it moves; without it what moves now.

    Attributes:
        key: hash of all that :meth:`before` follows from, images apart: code, settings, weights.
        crossing: nodes of the graph that cross the cut; none where the backbone is taken whole.

    Raises:
        NoCutError: nothing in front is fixed, or the forward pass can't be followed.
    """

    def __init__(self, model: TransferModel | Followed, moving: Moving | None = None) -> None:
        self.followed = model if isinstance(model, Followed) else Followed(model)
        whole = self.followed.model
        moving = moving or Moving.now(whole)
        self._before: nn.Module
        self._after: nn.Module
        self.crossing: list[fx.Node] = []
        if not moving.touches(whole.backbone):
            self._before, self._after = _Backbone(whole), nn.Identity()
            takes = getattr(whole.head, "takes", "pooled")
            self.key = sha256_record([whole.name, takes, fingerprint(whole.backbone)])
            return
        images, output = self.followed.ends
        self.crossing = _crossing(self.followed, images, moving)
        front = self.followed.part([images], self.crossing, whole=False)
        self._before = front
        own = {name: fingerprint(part) for name, part in front.named_children()}
        self.key = sha256_record([whole.name, front.code, own])
        self._after = self.followed.part(self.crossing, output, whole=True)

    def before(self, images: Tensor) -> Values:
        """Map (B, C, H, W) images to what crosses the cut."""
        return cast(Values, self._before(images))

    def after(self, values: Values) -> Tensor:
        """Map what :meth:`before` returned, of any of the images, to features."""
        return cast(Tensor, self._after(*values))


class OnePass:
    """What crosses several cuts of one model, in one pass over images.

    Args:
        cuts: of the same :class:`Followed`; only the first may take the backbone whole.
    """

    def __init__(self, cuts: Sequence[Cut]) -> None:
        self.cuts = list(cuts)
        self._pass: nn.Module | None = None
        if len(cuts) > 1:
            followed = cuts[0].followed
            images, output = followed.ends
            ends = [cut.crossing or [output] for cut in cuts]
            self._widths = [len(own) for own in ends]
            every = [node for own in ends for node in own]
            self._pass = followed.part([images], every, whole=False, kept=set(every))

    def __call__(self, images: Tensor) -> list[Values]:
        """Map (B, C, H, W) images to what crosses each cut."""
        if self._pass is None:
            return [self.cuts[0].before(images)]
        found = iter(self._pass(images))
        return [tuple(next(found) for _ in range(width)) for width in self._widths]


class _Backbone(nn.Module):
    def __init__(self, model: TransferModel) -> None:
        super().__init__()
        self.backbone, self._features = model.backbone, model.features

    def forward(self, images: Tensor) -> Values:
        return (self._features(images),)


def _crossing(followed: Followed, images: fx.Node, moving: Moving) -> list[fx.Node]:
    """Return the fixed nodes that lead to others, and follow from the images.

    Raises:
        NoCutError: no layer in front is fixed.
    """
    modules = dict(followed.root.named_modules())
    fixed: set[fx.Node] = set()
    seen = {images}  # what follows from the images
    for node in followed.graph.nodes:
        if seen & set(node.all_input_nodes):
            seen.add(node)
        known = node.op != "output" and fixed.issuperset(node.all_input_nodes)
        if known and _stands(node, followed.root, modules, moving):
            fixed.add(node)
    crossing = [
        node for node in followed.graph.nodes
        if node in fixed and node in seen and not fixed.issuperset(node.users)
    ]  # fmt: skip
    learned = any(
        node.op == "call_module" and any(True for _ in modules[str(node.target)].parameters())
        for node in fixed
    )
    if not learned or images in crossing:
        raise NoCutError("nothing in front of the model is frozen")
    return crossing


def _stands(node: fx.Node, root: nn.Module, modules: dict[str, nn.Module], moving: Moving) -> bool:
    """Say whether a node computes the same at every step, given the same inputs."""
    if node.op == "call_module":
        return not moving.touches(modules[str(node.target)])
    if node.op == "get_attr":
        value: Any = root
        for name in str(node.target).split("."):
            value = getattr(value, name)
        return id(value) not in moving.parameters
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return not any(word in name for word in RANDOM)


def per_image(values: Values, images: int) -> Values:
    """Return values if each has one row an image.

    Raises:
        NoCutError: something else crosses the cut.
    """
    if all(isinstance(v, torch.Tensor) and v.ndim and len(v) == images for v in values):
        return values
    raise NoCutError("what leaves its frozen part is not one tensor an image")
