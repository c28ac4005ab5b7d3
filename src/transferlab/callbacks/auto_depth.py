"""How many layer groups to unfreeze, decided on validation: the declaration of the candidates."""

from collections.abc import Sequence
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer

from transferlab.callbacks.phases import Phases
from transferlab.errors import UserError
from transferlab.parts import Parts
from transferlab.phase_reading import parse_phases
from transferlab.schedule import Phase


class AutoDepth(Phases):
    """Train the top layer groups, as many as validation says.

    One candidate a depth is fitted with the whole budget from the same start, its top ``depth``
    layer groups training (1 is the head alone); the smallest depth within one standard error of
    the best is the run. :func:`transferlab.auto_depth.fit` makes the candidates; what this
    callback itself schedules is the deepest.

    Args:
        depths: ``all``, or the numbers of layer groups to try, the head counted.
        groups: ``stages`` or ``blocks``, the unit of layer groups.
    """

    chooses = True

    def __init__(
        self,
        depths: Literal["all"] | Sequence[int] = "all",
        groups: Literal["stages", "blocks"] = "stages",
    ) -> None:
        super().__init__(groups=groups)
        given: list[Any] = [] if depths == "all" else sorted(set(depths))
        whole = all(isinstance(d, int) and not isinstance(d, bool) and d >= 1 for d in given)
        if depths != "all" and not (given and whole):
            raise UserError(
                f"auto_depth.depths={depths}: expected all, or numbers of layer groups from 1."
            )
        self.depths: list[int] = given

    def trains_backbone(self) -> bool:
        """Say whether a candidate trains more than the head."""
        return self.depths != [1]

    def candidates(self, parts: Parts) -> list[int]:
        """Return the depths to try on a model, smallest first.

        Raises:
            UserError: a depth above the number of layer groups.
        """
        count = len(parts.groups)
        if self.depths and self.depths[-1] > count:
            raise UserError(
                f"auto_depth.depths={self.depths}: the model has {count} layer groups "
                f"({', '.join(group.name for group in parts.groups)})."
            )
        return self.depths or list(range(1, count + 1))

    def schedule(self, parts: Parts, steps: int, steps_per_epoch: float) -> list[Phase]:
        """Return the phase of the deepest candidate."""
        del steps, steps_per_epoch
        return parse_phases(phases_of(self.candidates(parts)[-1]))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to be one fit."""
        raise UserError(
            "AutoDepth makes several fits, which transferlab run does. In a Trainer of your own "
            "use Phases, once for each depth."
        )


def phases_of(depth: int) -> dict[str, dict[str, list[str]]]:
    """Return the phases of one candidate, as a YAML would give them."""
    return {f"depth_{depth}": {"train": [f"last {depth}"]}}
