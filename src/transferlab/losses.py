"""Losses over (B, C) logits and labels; class weights come from the training subset.

Labels are (B,) class numbers, or (B, C) probabilities where an augmentation mixes images. A class
weight multiplies that class's part of every target, and the mean is over the weights that the
targets carry, so one-hot probabilities give what class numbers give.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferlab.errors import UserError

ClassWeights = Literal["balanced"] | list[float] | None


class ClassLoss(nn.Module):
    """Base: holds the class weights that :meth:`prepare` derives from the training labels.

    Args:
        class_weights: None, ``balanced`` (inverse frequency, mean 1), or C positive numbers.
    """

    weight: Tensor | None

    def __init__(self, class_weights: ClassWeights = None) -> None:
        super().__init__()
        self.class_weights = class_weights
        self.register_buffer("weight", None, persistent=False)

    def prepare(self, labels: Tensor, num_classes: int) -> None:
        """Fix the class weights from the (N,) training labels.

        Raises:
            UserError: a list of weights whose length is not the number of classes.
        """
        if self.class_weights is None:
            return
        if self.class_weights == "balanced":
            counts = torch.bincount(labels, minlength=num_classes).clamp_min(1).float()
            inverse = 1 / counts
            self.weight = inverse / inverse.mean()
            return
        if len(self.class_weights) != num_classes or min(map(float, self.class_weights)) <= 0:
            raise UserError(
                f"loss.class_weights={list(self.class_weights)}: expected {num_classes} positive "
                "numbers, one a class in the order of the class names, or balanced."
            )
        self.weight = torch.tensor([float(value) for value in self.class_weights])

    def mass(self, labels: Tensor) -> Tensor:
        """Return the class weight that (B,) labels or (B, C) probabilities carry in all."""
        assert self.weight is not None
        return self.weight[labels].sum() if labels.ndim == 1 else _mass(labels, self.weight)

    def alike(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return logits, (B, C) probabilities and class weights in the finer of their types."""
        kind = torch.promote_types(logits.dtype, targets.dtype)
        weight = None if self.weight is None else self.weight.to(kind)
        return logits.to(kind), targets.to(kind), weight


class CrossEntropy(ClassLoss):
    """Cross-entropy, by option smoothed and weighted by class.

    Args:
        label_smoothing: share of the target mass spread over all classes, in [0, 1).
        class_weights: see :class:`ClassLoss`.
    """

    def __init__(self, label_smoothing: float = 0.0, class_weights: ClassWeights = None) -> None:
        super().__init__(class_weights)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"loss.label_smoothing={label_smoothing}: expected a share in [0, 1).")
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss in nats over (B, C) logits and (B,) labels or (B, C) probabilities."""
        if labels.ndim == 1:
            return F.cross_entropy(
                logits, labels, weight=self.weight, label_smoothing=self.label_smoothing
            )
        logits, targets, weight = self.alike(logits, labels)
        # torch's own mean over probabilities divides by B and not by the weights
        total = F.cross_entropy(
            logits, targets, weight=weight, label_smoothing=self.label_smoothing, reduction="sum"
        )
        return total / _mass(targets, weight)


class Focal(ClassLoss):
    """Cross-entropy that counts well-classified examples less: (1 - p) ** gamma.

    Source: Lin et al., ICCV 2017 (arXiv:1708.02002), for several classes.

    Args:
        gamma: at least 0; 0 is cross-entropy.
        class_weights: see :class:`ClassLoss`.
    """

    def __init__(self, gamma: float = 2.0, class_weights: ClassWeights = None) -> None:
        super().__init__(class_weights)
        if gamma < 0:
            raise UserError(f"loss.gamma={gamma}: expected a number of at least 0.")
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss in nats over (B, C) logits and (B,) labels or (B, C) probabilities."""
        if labels.ndim == 2:
            logits, targets, weight = self.alike(logits, labels)
            parts = targets * self._focused(F.log_softmax(logits, dim=-1))
            total = parts.sum() if weight is None else (parts * weight).sum()
            return total / _mass(targets, weight)
        log_p = F.log_softmax(logits, dim=-1).gather(1, labels[:, None]).squeeze(1)
        losses = self._focused(log_p)
        if self.weight is None:
            return losses.mean()
        weights = self.weight[labels]
        return (weights * losses).sum() / weights.sum()

    def _focused(self, log_p: Tensor) -> Tensor:
        # at p = 1 a gamma below 1 would have an infinite slope, and the gradient would be NaN
        missing = (-log_p.expm1()).clamp_min(torch.finfo(log_p.dtype).eps)
        return -(missing**self.gamma) * log_p


def _mass(targets: Tensor, weight: Tensor | None) -> Tensor:
    """Return the class weight that (B, C) probabilities carry in all: B without weights."""
    return targets.sum() if weight is None else (targets * weight).sum()
