"""The backbone frozen for good, or for the first part of the budget."""

from transferlab.callbacks.phases import Phases
from transferlab.errors import UserError


class FrozenBackbone(Phases):
    """Feature extraction: the head alone trains."""

    def __init__(self) -> None:
        super().__init__({"head": {"train": ["head"]}})


class LinearProbing(Phases):
    """The head alone for a share of the budget, then everything.

    Source: Kumar et al., ICLR 2022 (arXiv:2202.10054).

    Args:
        share: of the budget, in (0, 1).
    """

    def __init__(self, share: float = 0.5) -> None:
        if not 0 < share < 1:
            raise UserError(f"linear_probing.share={share}: expected a share in (0, 1).")
        super().__init__(
            {
                "probe": {"train": ["head"], "until": {"share": share}},
                "fine_tune": {"train": ["all"]},
            }
        )
