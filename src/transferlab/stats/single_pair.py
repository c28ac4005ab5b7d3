"""What one pair of models shows: a remark on these two models, never on the strategies."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest


def mcnemar_p(transfer: ArrayLike, scratch: ArrayLike) -> float:
    """Exact two-sided p against "these two models are right equally often".

    Of the items that exactly one of the two gets right, each is as likely to be either's. Another
    seed would give other models, so this says nothing about transfer: one seed judged by it gives
    far too many verdicts.

    Args:
        transfer: (M,) whether one model of the arm is right, item by item.
        scratch: (M,) the same of one model trained from scratch.

    Returns:
        p in (0, 1]; 1 where the two are never right on different items.

    Raises:
        ValueError: not two equally long rows of booleans or of 0 and 1.

    Source: McNemar, Psychometrika 1947.
    """
    first, second = np.asarray(transfer), np.asarray(scratch)
    if first.ndim != 1 or first.shape != second.shape or first.size == 0:
        raise ValueError(
            f"mcnemar_p got shapes {first.shape} and {second.shape}. Pass one answer per item of "
            "one model each; runs must not be pooled."
        )
    if not np.isin(np.concatenate([first, second]), (0, 1)).all():
        raise ValueError("mcnemar_p counts right and wrong answers. Pass booleans, or 0 and 1.")
    won = int((first > second).sum())
    lost = int((first < second).sum())
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
