"""Lower rates for lower layers."""

from lightning.pytorch import LightningModule, Trainer
from torch import nn

from transferlab.backbones.groups import Granularity
from transferlab.callbacks.base import StrategyCallback
from transferlab.callbacks.phases import model_of
from transferlab.callbacks.trainer_facts import only_optimizer
from transferlab.errors import UserError
from transferlab.optim import split_groups
from transferlab.parts import Parts, decay_ids


class LayerwiseLRDecay(StrategyCallback):
    """Layer k of K, the head being the last, trains at ``lr * decay ** (K - 1 - k)``.

    Absolute rates are written into the optimizer's groups before the first step, so they hold
    under every scheduler of torch; works in any Lightning Trainer.

    Source: Clark et al., ICLR 2020 (arXiv:2003.10555); layers as timm groups them.

    Args:
        decay: in (0, 1).
        groups: ``blocks`` or ``stages``, what counts as a layer.
    """

    def __init__(self, decay: float = 0.75, groups: Granularity = "blocks") -> None:
        if not 0 < decay < 1:
            raise UserError(
                f"layer_decay.decay={decay}: expected a number in (0, 1); at 1 every layer has "
                "the same rate, which is strategy=fine_tune."
            )
        self.decay, self.groups = decay, groups

    def lr_scales(self, model: nn.Module) -> dict[str, float]:
        """Return each parameter's factor on the head's rate, in (0, 1].

        Raises:
            UserError: the model has a single layer group.
        """
        parts = Parts(model, self.groups)
        ids, head = decay_ids(parts), len(parts.groups) - 1
        if len(set(ids.values())) < 2:
            raise UserError(
                f"layer_decay: {type(model).__name__} has one layer group, so all rates are "
                "equal. Use strategy=fine_tune."
            )
        return {name: self.decay ** (head - group) for name, group in ids.items()}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Split the optimizer's groups by layer and scale their rates."""
        model = model_of(pl_module)
        scales = self.lr_scales(model)
        by_id = {id(p): scales[name] for name, p in model.named_parameters()}
        split_groups(
            only_optimizer(trainer),
            [config.scheduler for config in trainer.lr_scheduler_configs],
            kind=lambda parameter: by_id.get(id(parameter), 1.0),
            scale=lambda parameter: by_id.get(id(parameter), 1.0),
        )
