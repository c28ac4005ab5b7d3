"""A penalty on the weakest directions of the features."""

from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from transferlab.callbacks.base import StrategyCallback
from transferlab.errors import UserError
from transferlab.model import TransferModel


class BSS(StrategyCallback):
    """Batch spectral shrinkage: push the smallest singular values of the features to zero.

    Adds ``eta`` times the sum of the ``k`` smallest squared singular values of the (B, F) matrix
    of a batch's features. Directions that carry little in the source are held to transfer badly.
    A batch is what one forward pass sees: a micro-batch of one device.

    Source: Chen et al., NeurIPS 2019, "Catastrophic forgetting meets negative transfer".

    Args:
        k: how many singular values, 1 or more.
        eta: strength, above 0.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, k: int = 1, eta: float = 1e-3) -> None:
        if k < 1:
            raise UserError(f"bss.k={k}: expected 1 or more.")
        if not eta > 0:
            raise UserError(f"bss.eta={eta}: expected a positive number.")
        self.k, self.eta = k, eta

    def adapt(self, model: TransferModel) -> None:
        """Refuse a head on the unpooled map: which pooling is meant is the head's own affair."""
        if getattr(model.head, "takes", "pooled") == "map":
            raise UserError(
                f"bss needs pooled (B, F) features, but {type(model.head).__name__} takes the "
                "unpooled map. Choose another head, such as head=linear."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a backbone that never trains: the features would not move."""
        callbacks: Sequence[object] = getattr(trainer, "callbacks", [])
        if not all(c.trains_backbone() for c in callbacks if isinstance(c, StrategyCallback)):
            raise UserError("bss shapes the features, but nothing trains the backbone: remove it.")

    def penalty(self, model: TransferModel, features: Tensor) -> Tensor | None:
        """Return the scalar penalty of (B, F) features; None while the backbone is frozen."""
        if not features.requires_grad:
            return None
        if features.ndim != 2 or self.k > min(features.shape):
            raise UserError(
                f"bss.k={self.k}: a batch of features of shape {tuple(features.shape)} has not as "
                "many singular values. Lower k, or raise batch_size."
            )
        return self.eta * smallest_squared(features, self.k)


def smallest_squared(features: Tensor, k: int) -> Tensor:
    """Return the sum of the ``k`` smallest squared singular values.

    They are the eigenvalues of the smaller Gram matrix, whose gradient is finite where some are
    equal, as that of a singular value decomposition with its vectors is not. Squaring doubles
    the range of sizes, so all is computed in float64 where the device has it.

    Args:
        features: (B, F).
        k: in 1 .. min(B, F).
    """
    kind = torch.float32 if features.device.type == "mps" else torch.float64
    with torch.autocast(features.device.type, enabled=False):
        matrix = features.to(kind)
        rows, columns = matrix.shape
        gram = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
        values = torch.linalg.eigvalsh(gram)  # ascending
        total: Tensor = values[:k].clamp(min=0).sum()  # rounding can make a zero negative
        return total.to(features.dtype if features.dtype == torch.float64 else torch.float32)
