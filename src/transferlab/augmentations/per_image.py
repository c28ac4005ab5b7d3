"""A library's random transform on every image by itself, with randomness derived per sample."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from transferlab.errors import UserError
from transferlab.randomness import seeded

LEVELS = 255
BITS = 24  # of randomness in one float32 of [0, 1)


class PerImage(nn.Module):
    """Apply a transform of torchvision's kind to each (C, H, W) uint8 image.

    Such transforms draw from torch's own generator. It is seeded from the sample's numbers before
    every image and put back afterwards, so what an image becomes depends on (seed, step, item)
    alone, and nothing else sees a changed generator.

    Args:
        transform: from a (C, H, W) uint8 image to one of the same shape and type, for example
            ``torchvision.transforms.v2.RandAugment``.
    """

    draws = 2

    def __init__(self, transform: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Transform (B, C, H, W) images in [0, 1], each by a seed of its (B, 2) numbers.

        Raises:
            UserError: the transform refuses the images, or changes their shape or type.
        """
        high, low = (uniforms.double() * 2**BITS).long().unbind(1)
        whole = images.mul(LEVELS).round_().to(torch.uint8)
        changed = []
        for image, seed in zip(whole, (high * 2**BITS + low).tolist(), strict=True):
            with seeded(seed):
                changed.append(self._one(image))
        return torch.stack(changed).to(images.dtype).div_(LEVELS)

    def _one(self, image: Tensor) -> Tensor:
        try:
            changed = self.transform(image)
        except (TypeError, ValueError, IndexError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"augmentation {self.transform}: it refuses an image of {tuple(image.shape)} "
                f"({reason}). Change its arguments, or leave it out."
            ) from error
        if changed.shape != image.shape or changed.dtype != image.dtype:
            raise UserError(
                f"augmentation {self.transform}: turned an image of {tuple(image.shape)}, "
                f"{image.dtype}, into {tuple(changed.shape)}, {changed.dtype}. Use a transform "
                "that keeps both."
            )
        return changed
