"""The head first, then one more part after another from the top."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from transferlab.callbacks.phases import Phases
from transferlab.curves import Curve
from transferlab.errors import UserError
from transferlab.parts import Parts
from transferlab.phase_reading import parse_phases, parse_span
from transferlab.schedule import Phase, Selector


class GradualUnfreezing(Phases):
    """Thaw one layer group after another, from the top, at equal distances.

    Source: Howard and Ruder, ACL 2018 (arXiv:1801.06146).

    Args:
        groups: ``stages`` or ``blocks``, the unit that thaws.
        share: of the budget by which all groups train, in (0, 1].
        every: the length between two thaws instead, for example {epochs: 1}.
        lr: absolute peak rate of all parts that thaw after the first.
        warmup: of the rate of a part that thaws, see :class:`transferlab.schedule.Warmup`.
        curve: of all rates over the budget; takes the scheduler's place.
    """

    def __init__(
        self,
        groups: Literal["stages", "blocks"] = "stages",
        share: float = 0.5,
        every: Mapping[str, Any] | None = None,
        lr: float | None = None,
        warmup: Mapping[str, Any] | None = None,
        curve: Curve | None = None,
    ) -> None:
        super().__init__(groups=groups, curve=curve)
        if not 0 < share <= 1:
            raise UserError(f"gradual_unfreezing.share={share}: expected a share in (0, 1].")
        self.share, self.lr, self.warmup = share, lr, warmup
        self.every = None if every is None else parse_span(every, "gradual_unfreezing.every")

    def trains_backbone(self) -> bool:
        """Return True."""
        return True

    def units(self, parts: Parts) -> list[tuple[str, list[Selector]]]:
        """Return what thaws, the first one first: names and selectors."""
        order = range(len(parts.groups) - 1, -1, -1)
        return [(parts.groups[index].name, [index]) for index in order]

    def schedule(self, parts: Parts, steps: int, steps_per_epoch: float) -> list[Phase]:
        """Return one phase a unit; units that thaw at the same step share one."""
        units = self.units(parts)
        nodes: dict[str, dict[str, Any]] = {}
        begun, last = -1, ""
        for index, (name, selectors) in enumerate(units):
            start = self._start(index, len(units) - 1, steps, steps_per_epoch)
            if start >= steps:
                break
            if start == begun:  # more units than steps
                nodes[last]["train"] += selectors
                continue
            if nodes:
                nodes[last]["until"] = {"steps": start - begun}
            nodes[name] = {"train": list(selectors)}
            if nodes[name] and index:
                nodes[name] |= {"lr": self.lr, "warmup": self.warmup}
            begun, last = start, name
        return parse_phases(nodes)

    def _start(self, index: int, thaws: int, steps: int, steps_per_epoch: float) -> int:
        if self.every is not None:
            # after whole epochs, however many steps those are: rounding each length would add up
            length = self.every.exact(steps, steps_per_epoch, "gradual_unfreezing.every")
            return math.ceil(index * length - 1e-6)
        # the first step at which step * thaws / (share * steps) has reached the count
        return next(
            (s for s in range(steps) if int(s * thaws / (self.share * steps)) >= index), steps
        )


class TensorUnfreezing(GradualUnfreezing):
    """Thaw a few parameter tensors at a time, in the reverse order of their registration.

    Source: finetuning-scheduler's implicit schedule, which thaws two at a time, those after the
    first phase at a rate of 1e-5.

    Args:
        tensors: that thaw together.
        share, every, lr, warmup: see :class:`GradualUnfreezing`.
    """

    def __init__(
        self,
        tensors: int = 2,
        share: float = 0.5,
        every: Mapping[str, Any] | None = None,
        lr: float | None = 1e-5,
        warmup: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(share=share, every=every, lr=lr, warmup=warmup)
        if tensors < 1:
            raise UserError(f"tensor_unfreezing.tensors={tensors}: expected at least 1.")
        self.tensors = tensors

    def units(self, parts: Parts) -> list[tuple[str, list[Selector]]]:
        """Return what thaws, the first one first: names and selectors."""
        names = list(parts.parameters)[::-1]
        pieces = [names[i : i + self.tensors] for i in range(0, len(names), self.tensors)]
        return [(piece[0], list(piece)) for piece in pieces]
