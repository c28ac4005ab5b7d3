from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from transferlab.analysis.judge import judge


def test_the_median_and_every_replicate_stand_beside_the_mean(
    synthetic: Callable[..., Any],
) -> None:
    """A rare catastrophe moves a mean and its interval; the points and the median show it."""
    directory = synthetic().write({5: [synthetic.SCRATCH, synthetic.Plan("arm", shift=0.6)]})
    verdict = next(each for each in judge(directory).verdicts if each["arm"] == "arm")
    gains = verdict["per_replicate_delta"]
    assert len(gains) == verdict["n_pairs"] == 8
    assert verdict["median_delta"] == pytest.approx(np.median(gains))
    assert verdict["delta"] == pytest.approx(np.mean(gains))
    assert verdict["median_delta"] != pytest.approx(verdict["delta"], abs=1e-9)
