"""Mixup and CutMix: the samples of a batch blended with one another, and so are their labels."""

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from transferlab.errors import UserError
from transferlab.randomness import seeded


class Mixing(nn.Module):
    """Blend every sample with its neighbour in the batch: all of it, or in a rectangle.

    With weight w drawn from Beta(alpha, alpha) once per batch, mixup makes w x + (1 - w) x', and
    CutMix pastes a rectangle that covers 1 - w of x' into x (less where the border cuts it; the
    labels follow what was pasted). The transforms are torchvision's. Batches are in random order,
    so a neighbour is a random partner.

    Sources: Zhang et al., ICLR 2018 (arXiv:1710.09412); Yun et al., ICCV 2019 (arXiv:1905.04899).

    Args:
        mixup: alpha of mixup, above 0; None leaves it out.
        cutmix: alpha of CutMix, above 0; None leaves it out. With both, each batch takes one of
            them, at even chances.
        probability: share of the batches that are mixed, in (0, 1].
    """

    draws = 0  # none per sample: the batch has a seed

    def __init__(
        self, mixup: float | None = None, cutmix: float | None = None, probability: float = 1.0
    ) -> None:
        super().__init__()
        alphas = [alpha for alpha in (mixup, cutmix) if alpha is not None]
        if not alphas or min(alphas) <= 0 or not 0 < probability <= 1:
            raise UserError(
                f"augmentation mixing: got mixup={mixup}, cutmix={cutmix}, "
                f"probability={probability}; expected at least one of mixup and cutmix, above 0, "
                "and a probability in (0, 1]."
            )
        self.probability = probability
        self._kinds: list[nn.Module] = []
        if mixup is not None:
            self._kinds.append(v2.MixUp(alpha=mixup))
        if cutmix is not None:
            self._kinds.append(v2.CutMix(alpha=cutmix))

    def forward(self, images: Tensor, targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Mix a batch as its seed says.

        Args:
            images: (B, C, H, W), B at least 2.
            targets: (B, K) probabilities of the classes, each row of sum 1.
            seed: of this batch; torch's generators are left as they were found.

        Returns:
            mixed images and targets, of the same shapes.

        Raises:
            UserError: a batch of one image.
        """
        if len(images) < 2:
            raise UserError(
                "augmentation mixing: a batch of one image has nothing to be mixed with. Raise "
                "batch_size, or choose another augmentation."
            )
        with seeded(seed):
            mixed = float(torch.rand(())) < self.probability
            kind = self._kinds[int(torch.randint(len(self._kinds), ()))]
            if not mixed:
                return images, targets
            out: tuple[Tensor, Tensor] = kind(images, targets)
        return out
