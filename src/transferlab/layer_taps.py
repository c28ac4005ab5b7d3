"""The activations that leave each layer group of a backbone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from transferlab.backbones.groups import Granularity
from transferlab.model import TransferModel
from transferlab.parts import Parts

Read = Callable[[Tensor], dict[str, Tensor]]


class GroupTaps:
    """Where to read what leaves each layer group, by the paths of modules.

    What leaves a group is what enters the first module of the next one, activation and pooling
    between them included, and for the last group the pooled features. Adapters keep the paths of
    the layers that they wrap, so the places found in a model serve its adapted copy too.

    Args:
        model: backbone and head, without adapters.
        granularity: ``stages`` or ``blocks``, the unit of layer groups.
    """

    def __init__(self, model: TransferModel, granularity: Granularity = "stages") -> None:
        parts = Parts(model, granularity)
        self.names = [group.name for group in parts.groups[:-1]]
        self._paths: list[list[str]] = [[] for _ in self.names]
        for path, module in model.backbone.named_modules():
            held = {
                parts.group_of.get(f"backbone.{path}.{n}") for n, _ in module.named_parameters()
            }
            (*_, group) = held or {None}
            if path and len(held) == 1 and group is not None:
                self._paths[group].append(path)

    @contextmanager
    def open(self, backbone: nn.Module) -> Iterator[Read]:
        """Yield a function from (B, channels, H, W) input to name -> (B, D) pooled activations.

        Args:
            backbone: the model's own, or its adapted copy.
        """
        entered: dict[int, Tensor] = {}
        left: dict[int, Tensor] = {}
        channels_last = str(getattr(backbone, "output_fmt", "")) in ("NHWC", "Format.NHWC")
        handles = []
        for group, paths in enumerate(self._paths):
            for path in paths:
                module = backbone.get_submodule(path)
                enter = _entering(group, entered, channels_last)
                leave = _leaving(group, left, channels_last)
                handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
                handles.append(module.register_forward_hook(leave))

        def read(images: Tensor) -> dict[str, Tensor]:
            entered.clear()
            left.clear()
            pooled: Tensor = backbone(images)
            # a group whose modules are never called has no place to read
            next_ones = {group - 1: values for group, values in entered.items() if group}
            found = left | next_ones | {len(self.names) - 1: pooled}
            return {self.names[group]: found[group] for group in sorted(found)}

        try:
            yield read
        finally:
            for handle in handles:
                handle.remove()


def _entering(group: int, seen: dict[int, Tensor], channels_last: bool) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del module
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if tensors and group not in seen:
            seen[group] = _pooled(tensors[0], channels_last)  # at once: it may change in place

    return hook


def _leaving(group: int, seen: dict[int, Tensor], channels_last: bool) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        del module, args
        if isinstance(output, Tensor):
            seen[group] = _pooled(output, channels_last)

    return hook


def _pooled(values: Tensor, channels_last: bool) -> Tensor:
    """Average over positions: of (B, C, H, W) or (B, H, W, C) maps, or of (B, N, C) tokens."""
    if values.ndim == 4:
        return values.mean(dim=(1, 2) if channels_last else (2, 3))
    return values.mean(dim=1) if values.ndim == 3 else values.flatten(1)
