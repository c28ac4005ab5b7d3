"""What a strategy's callback may do beyond Lightning's own hooks."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback
from torch import Tensor

from transferlab.model import TransferModel


class StrategyCallback(Callback):
    """A named part of a strategy; every method has a neutral default.

    What is trainable and at which rate is a pure function of the optimiser step and of recorded
    transitions: a run that is started again anywhere computes the same. Other state goes into
    Lightning's ``state_dict`` as plain containers.
    """

    chooses: bool = False
    """Whether validation decides anything, so that metric and cadence are part of the identity."""

    def adapt(self, model: TransferModel) -> None:
        """Change or remember the model, after it has its starting weights, before it trains."""

    def penalty(self, model: TransferModel, features: Tensor) -> Tensor | None:
        """Return a scalar that is added to the loss of every step, or None.

        Args:
            model: in training.
            features: what the head was given in this step.
        """
        del model, features
        return None

    def trains_backbone(self) -> bool:
        """Say whether any part of the backbone trains at any time under this callback."""
        return True

    def trials(self) -> list[dict[str, Any]]:
        """Return what was compared on the validation images for this run, one entry a trial."""
        return []

    def steps(self, budget: int) -> int:
        """Return how many optimiser steps of the budget are taken."""
        return budget

    def identity(self, run: Mapping[str, Any]) -> Any:
        """Return what defines a run in the place of the callback's settings, or None for those.

        Args:
            run: what else defines it, by the names of ``planning.Plan.identity``.
        """
        del run
        return None


def is_overridden(callback: StrategyCallback, method: str) -> bool:
    """Say whether a callback brings a method of its own."""
    own: Any = getattr(type(callback), method)
    return own is not getattr(StrategyCallback, method)
