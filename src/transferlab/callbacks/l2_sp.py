"""A pull towards the starting weights."""

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from transferlab.callbacks.base import StrategyCallback
from transferlab.errors import UserError
from transferlab.model import TransferModel
from transferlab.parts import Parts

_WRAPPED = ".base_layer"  # where an adapter took a layer's place, the layer keeps its start


class L2SP(StrategyCallback):
    r"""Penalise the distance to the starting weights instead of to zero.

    Adds :math:`\frac{\alpha}{2}\|w - w_0\|^2 + \frac{\beta}{2}\|v\|^2` to the loss of every step:
    ``w`` are the body's parameters, weights and biases of its norm layers included, ``w_0`` the
    weights that the run started from, ``v`` the head's. Only parameters that train at the step
    enter; adapters, which start at nothing learnt, never do. It takes the place of weight decay,
    which pulls the body to zero: see ``weight_decay``.

    Source: Li et al., ICML 2018 (arXiv:1802.01483).

    Args:
        alpha: strength of the pull on the body, 0 or more.
        beta: strength of the pull on the head to zero, 0 or more.
        weight_decay: of all optimizer groups, in the optimizer's place; None leaves those.

    Raises:
        UserError: a negative strength, or none.
    """

    def __init__(
        self, alpha: float = 0.01, beta: float = 0.01, weight_decay: float | None = 0.0
    ) -> None:
        if not (alpha >= 0 and beta >= 0 and alpha + beta > 0):
            raise UserError(
                f"l2_sp.alpha={alpha}, beta={beta}: expected 0 or more, one of them above."
            )
        if weight_decay is not None and not weight_decay >= 0:
            raise UserError(f"l2_sp.weight_decay={weight_decay}: expected 0 or more, or null.")
        self.alpha, self.beta, self.weight_decay = alpha, beta, weight_decay
        self._start: dict[str, Tensor] = {}
        self._head: frozenset[str] = frozenset()

    def adapt(self, model: TransferModel) -> None:
        """Remember the starting weights; a resumed run gets here with the same ones again."""
        parts = Parts(model)
        added = parts.select("adapters", "l2_sp") if model.adapter_modules else frozenset()
        self._head = parts.head
        self._start = {
            name.replace(_WRAPPED, ""): parts.parameters[name].detach().clone()
            for name in parts.parameters
            if name in parts.body - added
        }

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the place of the optimizer's weight decay."""
        if self.weight_decay is None:
            return
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                if "weight_decay" in group:
                    group["weight_decay"] = self.weight_decay

    def penalty(self, model: TransferModel, features: Tensor) -> Tensor | None:
        """Return the scalar penalty in float32 or better; None where nothing it is for trains."""
        terms = []
        for name, parameter in model.named_parameters():
            plain = name.replace(_WRAPPED, "")
            if not parameter.requires_grad:
                continue
            value = parameter if parameter.itemsize > 2 else parameter.float()
            if name in self._head and self.beta:
                terms.append(self.beta / 2 * value.square().sum())
            elif plain in self._start and self.alpha:
                if self._start[plain].device != parameter.device:  # once, where the model moved
                    self._start[plain] = self._start[plain].to(parameter.device)
                terms.append(self.alpha / 2 * (value - self._start[plain]).square().sum())
        if not terms:
            return None
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total
