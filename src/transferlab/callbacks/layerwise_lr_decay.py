"""Lower rates for lower layers."""

from transferlab.callbacks.base import StrategyCallback
from transferlab.errors import UserError
from transferlab.model import TransferModel


class LayerwiseLRDecay(StrategyCallback):
    """Layer k of K, the head being the last, trains at ``lr * decay ** (K - 1 - k)``.

    Source: Clark et al., ICLR 2020 (arXiv:2003.10555); layers as timm groups them.

    Args:
        decay: in (0, 1).
    """

    def __init__(self, decay: float = 0.75) -> None:
        if not 0 < decay < 1:
            raise UserError(
                f"layer_decay.decay={decay}: expected a number in (0, 1); at 1 every layer has "
                "the same rate, which is strategy=fine_tune."
            )
        self.decay = decay

    def lr_scales(self, model: TransferModel, layers: int) -> list[float]:
        """Return ``decay ** (layers - 1 - k)`` for each layer k."""
        if layers < 2:
            raise UserError(
                f"layer_decay: {model.name} has {layers} layer group, so all rates are equal. "
                "Use strategy=fine_tune."
            )
        return [self.decay ** (layers - 1 - layer) for layer in range(layers)]
