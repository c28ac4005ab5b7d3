"""WiSE-FT: weights between the probed and the fine-tuned model, chosen on validation."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from transferlab.callbacks.base import StrategyCallback
from transferlab.callbacks.best_weights import BestWeights
from transferlab.callbacks.phases import Phases, model_of
from transferlab.callbacks.scoring import history_of, validation_score
from transferlab.errors import RunError, UserError, nearest

State = dict[str, Tensor]


class WiseFT(StrategyCallback):
    """Average the weights at the end of a phase with those at the end of the run.

    theta = (1 - alpha) theta0 + alpha theta1, floating buffers (norm statistics) too; integer
    buffers are theta1's. theta0 are the weights when the phase ``after`` ends: its head fits the
    starting backbone, where that of a run which starts with everything would be random. alpha is
    the one with the best validation score; of equals the one nearest to 0.5, which the paper
    recommends where nothing is known, and of two as near the larger. With alpha 1 this is LP-FT.

    Source: Wortsman et al., CVPR 2022 (arXiv:2109.01903).

    Args:
        after: name of the phase that ends with theta0.
        step: between two values of alpha from 0 to 1; it divides 1.
    """

    chooses = True

    def __init__(self, after: str = "probe", step: float = 0.1) -> None:
        count = round(1 / step) if 0 < step <= 1 else 0
        if count == 0 or abs(count * step - 1) > 1e-9:
            raise UserError(f"wise_ft.step={step}: expected a share of 1, such as 0.1 or 0.25.")
        self.after = after
        self.alphas = [index / count for index in range(count + 1)]
        self._start: State = {}
        self._trials: list[dict[str, Any]] = []

    def trials(self) -> list[dict[str, Any]]:
        """Return alpha, its validation score and whether it was chosen, for every alpha."""
        return self._trials

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the phases and check that ``after`` names one that ends."""
        callbacks: list[Any] = list(getattr(trainer, "callbacks", []))
        before = callbacks[: callbacks.index(self)]
        phases = [callback for callback in before if isinstance(callback, Phases)]
        names = phases[0].phase_at(0)[1] if phases else []
        if self.after not in names[:-1]:
            raise UserError(
                f"wise_ft.after={self.after!r}: expected a phase that ends, of a callback that "
                f"stands before this one ({nearest(self.after, names[:-1] or ['none does'])})."
            )
        if any(isinstance(callback, BestWeights) for callback in callbacks):
            raise UserError(
                "checkpoint.select=best: strategy=wise_ft chooses between two sets of weights on "
                "validation by itself. Set checkpoint.select=last."
            )
        self._phases, self._following = phases[0], names.index(self.after) + 1

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Keep theta0 when the phase is over, before anything more is trained."""
        over = self._phases.phase_at(trainer.global_step)[0] >= self._following
        if over and not self._start:
            state = model_of(pl_module).state_dict()
            self._start = {name: value.detach().clone() for name, value in state.items()}

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Score every alpha on the validation images and leave the best one's weights."""
        if history_of(trainer) is None:
            return  # a search for a rate, whose weights are thrown away
        if not self._start:
            raise RunError(
                f"phase {self.after} lasted to the end of the budget, so there is nothing to "
                "average. Raise budget.steps, or give the phase a shorter end."
            )
        end = {name: v.detach().clone() for name, v in pl_module.model.state_dict().items()}
        scores = [
            validation_score(trainer, pl_module, interpolate(self._start, end, alpha))
            for alpha in self.alphas
        ]
        chosen = choose_alpha(self.alphas, scores)
        pl_module.model.load_state_dict(interpolate(self._start, end, chosen))
        self._trials = [
            {"alpha": alpha, "score": score, "chosen": alpha == chosen}
            for alpha, score in zip(self.alphas, scores, strict=True)
        ]
        self._start = {}

    def state_dict(self) -> dict[str, Any]:
        """Return theta0, once it is known."""
        return {"start": self._start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self._start = dict(state_dict["start"])


def interpolate(start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float) -> State:
    """Return (1 - alpha) start + alpha end; alpha 0 and 1 give the two to the last bit.

    Args:
        start: weights and buffers by name.
        end: the same names and shapes; integer ones are taken from here.
        alpha: in [0, 1].

    Raises:
        ValueError: the names differ.
    """
    if start.keys() != end.keys():
        raise ValueError(f"names differ: {sorted(start.keys() ^ end.keys())[:3]}")
    return {
        name: torch.lerp(start[name].to(value.device), value, alpha)
        if value.is_floating_point()
        else value.clone()
        for name, value in end.items()
    }


def choose_alpha(alphas: list[float], scores: list[float]) -> float:
    """Return the alpha with the best score; ties go to the nearest to 0.5, then to the larger."""
    pairs = zip(alphas, scores, strict=True)
    return max(pairs, key=lambda pair: (pair[1], -round(abs(pair[0] - 0.5), 9), pair[0]))[0]
