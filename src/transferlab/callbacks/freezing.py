"""The backbone frozen for good, or for the first part of the budget."""

from transferlab.callbacks.base import Freezing
from transferlab.errors import UserError


class FrozenBackbone(Freezing):
    """Feature extraction: the head alone trains."""

    def first_trained(self, step: int, steps: int, groups: int) -> int:
        """Return the head's number, whatever the step."""
        del step, steps
        return groups - 1

    def trains_backbone(self) -> bool:
        """Return False: no part of the backbone ever trains."""
        return False


class LinearProbing(Freezing):
    """The head alone for a share of the budget, then everything.

    Source: Kumar et al., ICLR 2022 (arXiv:2202.10054).

    Args:
        share: of the budget, in (0, 1).
    """

    def __init__(self, share: float = 0.5) -> None:
        if not 0 < share < 1:
            raise UserError(f"linear_probing.share={share}: expected a share in (0, 1).")
        self.share = share

    def first_trained(self, step: int, steps: int, groups: int) -> int:
        """Return the head's number before the share is spent, then 0."""
        return groups - 1 if step < round(self.share * steps) else 0
