"""Random rotation, scale and shift."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferlab.errors import UserError


class RandomAffine(nn.Module):
    """Rotate, scale and shift each image by amounts of its own, bilinear, edges repeated.

    Args:
        degrees: rotations are drawn evenly from [-degrees, degrees].
        scale: (low, high) magnification, drawn evenly; above 1 enlarges.
        shift: shifts are drawn evenly from [-shift, shift], as a share of the side.
    """

    draws = 4

    def __init__(
        self, degrees: float = 0.0, scale: Sequence[float] = (1.0, 1.0), shift: float = 0.0
    ) -> None:
        super().__init__()
        if degrees < 0 or shift < 0 or len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise UserError(
                f"augmentation affine: got degrees={degrees}, scale={list(scale)}, shift={shift}; "
                "expected degrees and shift of at least 0 and scale as [low, high] with "
                "0 < low <= high."
            )
        self.degrees, self.shift = float(degrees), float(shift)
        self.scale = (float(scale[0]), float(scale[1]))

    def forward(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Transform (B, C, H, W) images by (B, 4) numbers in [0, 1)."""
        angle = (2 * uniforms[:, 0] - 1) * math.radians(self.degrees)
        low, high = self.scale
        zoom = low + (high - low) * uniforms[:, 1]
        shift = (2 * uniforms[:, 2:4] - 1) * 2 * self.shift  # the grid's side has length 2
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        matrix = torch.stack(
            [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1
        )
        grid = F.affine_grid(matrix.to(images.dtype), list(images.shape), align_corners=False)
        return F.grid_sample(
            images, grid, mode="bilinear", padding_mode="border", align_corners=False
        )
