"""How a foreign table is judged: its metric, unit, direction, margin and level."""

from dataclasses import dataclass
from math import floor, log10

from transferlab.analysis.formats import POINTS, UNITS, Unit
from transferlab.errors import UserError

DEFAULT_MARGIN = 0.01

SHARES = (
    "accuracy", "top1", "top5", "top1_accuracy", "top5_accuracy", "balanced_accuracy",
    "macro_recall", "recall", "precision", "f1", "macro_f1", "auc", "auroc", "average_precision",
    "map", "iou", "miou", "dice", "error", "error_rate",
)  # fmt: skip
"""Metrics from 0 to 1, shown in points."""

LOWER = (
    "error", "error_rate", "loss", "log_loss", "cross_entropy", "nll", "mae", "mse", "rmse",
    "perplexity", "ece", "brier",
)  # fmt: skip
"""Metrics that everybody reads as better when lower."""

BY_CLASS = ("macro_recall", "balanced_accuracy")
"""Metrics that are the mean over classes, not over items."""

MEAN_OF_CORRECT = ("accuracy", "top1", "top5", "top1_accuracy", "top5_accuracy")
"""Metrics that are the share of items answered rightly."""


@dataclass(frozen=True)
class Options:
    """How a table is judged.

    Attributes:
        metric: what the scores measure.
        margin: the largest difference that doesn't matter, in the metric's unit, a share for
            metrics from 0 to 1.
        alpha: the level held over each family.
        percent: whether scores are written from 0 to 100.
        lower_is_better: whether a lower score is a better one.
    """

    metric: str = "accuracy"
    margin: float = DEFAULT_MARGIN
    alpha: float = 0.05
    percent: bool = False
    lower_is_better: bool = False

    @property
    def share(self) -> bool:
        """Whether scores lie from 0 to 1 once percents are divided."""
        return self.percent or self.metric in SHARES

    @property
    def sign(self) -> int:
        """What scores are multiplied by so that higher is better."""
        return -1 if self.lower_is_better else 1

    @property
    def scale(self) -> float:
        """What scores are multiplied by to be in the metric's own unit."""
        return 0.01 if self.percent else 1.0

    @property
    def unit(self) -> Unit:
        """How differences are written: one digit more than the margin has."""
        if self.share:
            return POINTS
        noun = UNITS[self.metric].noun if self.metric in UNITS else ""
        return Unit(1, noun, max(0, 1 - floor(log10(self.margin))))

    @property
    def margin_words(self) -> str:
        """The margin with its unit: ``1 point``, ``0.5 points``, ``0.01``."""
        number = f"{self.unit.scale * self.margin:g}"
        if not self.unit.noun:
            return number
        return f"{number} point" if number == "1" else f"{number} {self.unit.noun}"


def checked(
    metric: str, margin: float | None, alpha: float, *, percent: bool, lower_is_better: bool
) -> Options:
    """The options, where they fit together.

    Args:
        metric: its name, in any spelling of case, spaces and hyphens.
        margin: None for the default of one point, which only metrics from 0 to 1 have.
        alpha: level of each family.
        percent: whether scores are percents.
        lower_is_better: whether a lower score is better.

    Raises:
        UserError: a number is out of range, the direction contradicts the metric, or the metric
            has no margin of its own and none was given.
    """
    name = "_".join(metric.replace("-", " ").replace("_", " ").lower().split())
    if not name:
        raise UserError("--metric is empty. Name what the scores measure, e.g. --metric accuracy.")
    if name in LOWER and not lower_is_better:
        raise UserError(
            f"--metric {metric} is better when lower: add --lower-is-better, or name what the "
            f"scores are, e.g. --metric negative_{name}."
        )
    if lower_is_better and name in SHARES and name not in LOWER:
        raise UserError(
            f"--metric {metric} is better when higher, and --lower-is-better says the opposite. "
            "Leave that out, or name the metric, e.g. --metric error."
        )
    options = Options(name, DEFAULT_MARGIN, alpha, percent, lower_is_better)
    if margin is None and not options.share:
        raise UserError(
            f"--metric {metric} has no margin of its own: add --margin with the largest "
            "difference that doesn't matter, in the scores' unit."
        )
    margin = DEFAULT_MARGIN if margin is None else margin
    if not 0 < margin < (0.5 if options.share else float("inf")):
        raise UserError(
            f"--margin {margin:g} is no margin. Use a number above 0"
            + (" and below 0.5: 0.01 is one point." if options.share else " in the scores' unit.")
        )
    if not 0 < alpha < 0.5:
        raise UserError(f"--alpha {alpha:g} is no error rate. Use one from 0 to 0.5, e.g. 0.05.")
    return Options(name, margin, alpha, percent, lower_is_better)
