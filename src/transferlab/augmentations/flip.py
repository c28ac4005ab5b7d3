"""Random mirroring: only where left and right mean the same."""

from torch import Tensor, nn

from transferlab.errors import UserError


class RandomHorizontalFlip(nn.Module):
    """Mirror each image with a given probability.

    Args:
        probability: in [0, 1].
    """

    draws = 1

    def __init__(self, probability: float = 0.5) -> None:
        super().__init__()
        if not 0 <= probability <= 1:
            raise UserError(f"augmentation flip: got probability={probability}; expected [0, 1].")
        self.probability = probability

    def forward(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Mirror those of the (B, C, H, W) images whose (B, 1) number is below the probability."""
        chosen = (uniforms[:, 0] < self.probability).view(-1, 1, 1, 1)
        return images.flip(-1).where(chosen, images)
