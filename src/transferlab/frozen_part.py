"""A model cut in two: the part in front that computes the same at every step, and the rest."""

from collections.abc import Iterable
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from transferlab.fingerprint import fingerprint
from transferlab.model import TransferModel
from transferlab.records import sha256_record

Values = tuple[Tensor, ...]
RANDOM = ("dropout", "rand", "bernoulli", "multinomial", "drop_path")
"""In the names of functions that draw numbers."""


class NoCutError(Exception):
    """The model can't be cut, with the reason."""


class Cut:
    """A model's features in two steps: ``after(before(images))`` is ``model.features(images)``.

    What is fixed: whatever follows from the images through modules that are in eval mode and
    have no parameter that trains, and through plain functions. Parameters are the model's own, so
    what trains behind the cut trains in the model.

    The forward pass is followed by torch.fx through the backbone, its sequences and lists; every
    other module (a block, as a rule) is taken whole. It may not depend on the mode that the
    backbone itself is in, nor on the values or the number of the images.

    Where the whole backbone is fixed, as it also is in a model in eval mode that is frozen, it is
    taken whole: nothing need be followed.

    Args:
        model: in train mode, its frozen modules held in eval mode; or in eval mode.

    Attributes:
        key: hash of all that :meth:`before` follows from, images apart: code, settings, weights.

    Raises:
        NoCutError: nothing in front is fixed, or the forward pass can't be followed.
    """

    def __init__(self, model: TransferModel) -> None:
        self._before: nn.Module
        self._after: nn.Module
        if _is_fixed(model.backbone):
            self._before, self._after = _Backbone(model), nn.Identity()
            takes = getattr(model.head, "takes", "pooled")
            self.key = sha256_record([model.name, takes, fingerprint(model.backbone)])
            return
        root = _Features(model)
        graph = _followed(root)
        modules = dict(root.named_modules())
        images = next(node for node in graph.nodes if node.op == "placeholder")
        fixed: set[fx.Node] = set()
        seen = {images}  # what follows from the images
        for node in graph.nodes:
            if seen & set(node.all_input_nodes):
                seen.add(node)
            known = node.op != "output" and fixed.issuperset(node.all_input_nodes)
            if known and _stands(node, root, modules):
                fixed.add(node)
        crossing = [
            node for node in graph.nodes
            if node in fixed and node in seen and not fixed.issuperset(node.users)
        ]  # fmt: skip
        learned = any(
            node.op == "call_module" and any(True for _ in modules[node.target].parameters())
            for node in fixed
        )
        if not learned or images in crossing:
            raise NoCutError("nothing in front of the model is frozen")
        inputs = {images: None} | dict.fromkeys(crossing)
        front = _part(root, graph, [images], crossing, whole=False)
        self._before = front
        own = {name: fingerprint(part) for name, part in front.named_children()}
        self.key = sha256_record([model.name, front.code, own])
        self._after = _part(root, graph, list(inputs)[1:], _outputs(graph), whole=True)

    def before(self, images: Tensor) -> Values:
        """Map (B, C, H, W) images to what crosses the cut."""
        return cast(Values, self._before(images))

    def after(self, values: Values) -> Tensor:
        """Map what :meth:`before` returned, of any of the images, to features."""
        return cast(Tensor, self._after(*values))


class _Backbone(nn.Module):
    def __init__(self, model: TransferModel) -> None:
        super().__init__()
        self.backbone, self._features = model.backbone, model.features

    def forward(self, images: Tensor) -> Values:
        return (self._features(images),)


class _Features(nn.Module):
    def __init__(self, model: TransferModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.features(images)


class _Tracer(fx.Tracer):
    """Follows the backbone, sequences and lists; takes all other modules whole."""

    def __init__(self, root: _Features) -> None:
        super().__init__()
        self.followed = [root, root.model, root.model.backbone]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        del module_qualified_name
        return m not in self.followed and not isinstance(m, nn.Sequential | nn.ModuleList)


def _followed(root: _Features) -> fx.Graph:
    """Follow the forward pass in both modes; they have to agree."""
    graphs = []
    tracer = _Tracer(root)
    plain = [m for m in root.modules() if not tracer.is_leaf_module(m, "")]
    for mode in (True, False):
        with _modes(plain, mode):
            try:
                graphs.append(tracer.trace(root))
            except Exception as error:  # of any kind: the model's own code runs on proxies
                raise NoCutError(f"its forward pass can't be followed ({error})") from error
    one, other = ([_said(node) for node in graph.nodes] for graph in graphs)
    if one != other:
        raise NoCutError("its forward pass is another one in training")
    return graphs[0]


@contextmanager
def _modes(modules: Iterable[nn.Module], mode: bool) -> Any:
    before = [(module, module.training) for module in modules]
    for module, _ in before:
        module.training = mode
    try:
        yield
    finally:
        for module, was in before:
            module.training = was


def _said(node: fx.Node) -> tuple[Any, ...]:
    return node.op, node.target, str(node.args), str(node.kwargs)


def _stands(node: fx.Node, root: nn.Module, modules: dict[str, nn.Module]) -> bool:
    """Say whether a node computes the same at every step, given the same inputs."""
    if node.op == "call_module":
        return _is_fixed(modules[str(node.target)])
    if node.op == "get_attr":
        value: Any = root
        for name in str(node.target).split("."):
            value = getattr(value, name)
        return not value.requires_grad
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return not any(word in name for word in RANDOM)


def _is_fixed(module: nn.Module) -> bool:
    return not any(p.requires_grad for p in module.parameters()) and not any(
        part.training for part in module.modules()
    )


def _outputs(graph: fx.Graph) -> Any:
    (output,) = [node for node in graph.nodes if node.op == "output"]
    return output.args[0]


def _part(
    root: nn.Module, graph: fx.Graph, inputs: list[fx.Node], outputs: Any, *, whole: bool
) -> fx.GraphModule:
    """Return what leads from some nodes to others; the model's modules are shared, not copied.

    It returns the one output by itself where that is the ``whole`` result, else a tuple.
    """
    made, part = {}, fx.Graph()
    for number, node in enumerate(inputs):
        made[node] = part.placeholder(f"value{number}")
    wanted: set[fx.Node] = set()
    todo = [outputs] if whole else list(outputs)
    while todo:
        node = todo.pop()
        if node not in wanted and node not in made:
            wanted.add(node)
            todo += node.all_input_nodes
    for node in graph.nodes:
        if node in wanted:
            made[node] = part.node_copy(node, made.__getitem__)
    part.output(made[outputs] if whole else tuple(made[node] for node in outputs))
    return fx.GraphModule(root, part)


def per_image(values: Values, images: int) -> Values:
    """Return values if each has one row an image.

    Raises:
        NoCutError: something else crosses the cut.
    """
    if all(isinstance(v, torch.Tensor) and v.ndim and len(v) == images for v in values):
        return values
    raise NoCutError("what leaves its frozen part is not one tensor an image")
