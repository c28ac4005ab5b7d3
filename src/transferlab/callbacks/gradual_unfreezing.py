"""The head first, then one more layer group from the top."""

from typing import Literal

from transferlab.callbacks.base import Freezing
from transferlab.errors import UserError


class GradualUnfreezing(Freezing):
    """Thaw one layer group after another, from the top, at equal distances.

    Source: Howard and Ruder, ACL 2018 (arXiv:1801.06146), by optimiser step instead of epoch.

    Args:
        groups: ``stages`` or ``blocks``, the unit that thaws.
        share: of the budget by which all groups train, in (0, 1].
    """

    def __init__(self, groups: Literal["stages", "blocks"] = "stages", share: float = 0.5) -> None:
        if not 0 < share <= 1:
            raise UserError(f"gradual_unfreezing.share={share}: expected a share in (0, 1].")
        self.groups, self.share = groups, share

    def first_trained(self, step: int, steps: int, groups: int) -> int:
        """Return the lowest group that has thawed by ``step``."""
        body = groups - 1
        thawed = int(step * body / max(self.share * steps, 1e-12))
        return body - min(thawed, body)
