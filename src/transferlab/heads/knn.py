"""Weighted nearest neighbours on features; nothing trains."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferlab.errors import UserError


class KNNHead(nn.Module):
    """The labels of the k most similar training images, weighted by a softmax of similarity.

    Similarity is the cosine. Weights softmax(similarity / temperature) over the k neighbours are
    summed by class, smoothed and logged, so that the softmax of the logits is those sums again.

    Sources: Wu et al., CVPR 2018 (arXiv:1805.01978); Caron et al., ICCV 2021 (arXiv:2104.14294).

    Args:
        in_features: width F of the features.
        num_classes: C.
        k: neighbours, at least 1; all of them where the training set has fewer.
        temperature: of the softmax, positive.
        smoothing: mass, in (0, 1), that is shared by all classes alike: no class gets
            probability 0.

    Shape:
        (B, F) -> (B, C): log probabilities. Uniform before the first ``refit``.
    """

    gradient: ClassVar[bool] = False
    grows: ClassVar[frozenset[str]] = frozenset({"keys", "labels"})
    keys: Tensor
    labels: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        k: int = 20,
        temperature: float = 0.07,
        smoothing: float = 0.01,
    ) -> None:
        super().__init__()
        if k < 1 or not temperature > 0 or not 0 < smoothing < 1:
            raise UserError(
                f"head knn: got k={k}, temperature={temperature}, smoothing={smoothing}; expected "
                "head.k of at least 1, a positive head.temperature and head.smoothing in (0, 1)."
            )
        self.num_classes, self.k = num_classes, k
        self.temperature, self.smoothing = temperature, smoothing
        self.register_buffer("keys", torch.zeros(0, in_features))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))

    def refit(self, features: Tensor, labels: Tensor) -> None:
        """Remember (N, F) features, normalised, and their (N,) labels."""
        self.keys = F.normalize(features.to(self.keys), dim=-1)
        self.labels = labels.to(self.labels)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, F) features to (B, C) log probabilities."""
        votes = torch.zeros(len(features), self.num_classes, device=self.keys.device)
        if len(self.keys):
            similarity = F.normalize(features.to(self.keys.dtype), dim=-1) @ self.keys.T
            nearest, rows = similarity.topk(min(self.k, len(self.keys)), dim=1)
            weights = (nearest / self.temperature).float().softmax(dim=1)
            votes.scatter_add_(1, self.labels[rows], weights)
            votes = votes * (1 - self.smoothing)
        votes = votes + self.smoothing / self.num_classes
        return votes.log()

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Take a memory of any size: make room before torch compares shapes."""
        for name in self.grows:
            saved = state_dict.get(prefix + name)
            if isinstance(saved, Tensor):
                setattr(self, name, getattr(self, name).new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
