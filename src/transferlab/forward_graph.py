"""A model's forward pass as a graph, and parts of it."""

from collections.abc import Collection, Iterable
from contextlib import contextmanager
from functools import cached_property
from typing import Any, cast

from torch import Tensor, fx, nn

from transferlab.model import TransferModel


class NoCutError(Exception):
    """The model can't be cut, with the reason."""


class Followed:
    """A model's features as a graph, followed when it is first asked for.

    torch.fx follows the forward pass through the backbone, its sequences and lists; every other
    module (a block, as a rule) is taken whole. It may not depend on the mode that the backbone
    itself is in, nor on the values or the number of the images.

    Args:
        model: as it trains.
    """

    def __init__(self, model: TransferModel) -> None:
        self.model, self.root = model, _Features(model)

    @cached_property
    def graph(self) -> fx.Graph:
        """The graph.

        Raises:
            NoCutError: the forward pass can't be followed.
        """
        return _followed(self.root)

    @property
    def ends(self) -> tuple[fx.Node, fx.Node]:
        """The graph's first and last value: images, and features."""
        (images,) = [node for node in self.graph.nodes if node.op == "placeholder"]
        (output,) = [node for node in self.graph.nodes if node.op == "output"]
        return images, cast(fx.Node, output.args[0])

    def part(
        self, inputs: list[fx.Node], outputs: Any, *, whole: bool, kept: Collection[fx.Node] = ()
    ) -> fx.GraphModule:
        """Return what leads from some nodes to others; the model's modules are shared, not copied.

        It returns the one output by itself where that is the ``whole`` result, else a tuple. Nodes
        that are ``kept`` are returned as they were when computed: later ones may write in place.
        """
        made, copies, part = {}, {}, fx.Graph()
        for number, node in enumerate(inputs):
            made[node] = part.placeholder(f"value{number}")
        wanted: set[fx.Node] = set()
        todo = [outputs] if whole else list(outputs)
        while todo:
            node = todo.pop()
            if node not in wanted and node not in made:
                wanted.add(node)
                todo += node.all_input_nodes
        for node in self.graph.nodes:
            if node in wanted:
                made[node] = part.node_copy(node, made.__getitem__)
            if node in wanted and node in kept:
                copies[node] = part.call_method("clone", (made[node],))
        found = made | copies
        part.output(found[outputs] if whole else tuple(found[node] for node in outputs))
        return fx.GraphModule(self.root, part)


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
