from math import isnan

import numpy as np
import pytest
from scipy.stats import ttest_rel

from transferlab.stats.crossed import compare
from transferlab.stats.paired_scores import compare_scores, largest_test_part
from transferlab.stats.verdict import adjust


def test_verdicts_are_those_of_the_paired_t_test() -> None:
    draw = np.random.default_rng(0)
    transfer, scratch = draw.normal(0.8, 0.02, 6), draw.normal(0.77, 0.02, 6)
    (verdict,) = adjust([compare_scores(transfer, scratch)])
    reference = ttest_rel(transfer, scratch)
    around = reference.confidence_interval()
    assert verdict.unadjusted.sign == pytest.approx(reference.pvalue)
    assert verdict.ci95 == pytest.approx((around.low, around.high))


def test_a_single_pair_and_equal_differences_give_no_interval() -> None:
    single = compare_scores([0.9], [0.5])
    assert (single.reason, single.delta) == ("single_replicate", pytest.approx(0.4))
    assert isnan(single.run_part)
    assert compare_scores([0.9, 0.8], [0.8, 0.7]).reason == "degenerate"
    assert compare_scores([0.9, 0.8], [0.9, 0.8]).reason == "degenerate", "no equal answers known"
    assert compare_scores([0.9, 0.8], [0.9, 0.81]).reason == ""


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_the_bound_holds_for_any_answers_and_is_reached(shift: float) -> None:
    draw = np.random.default_rng(int(10 * shift))
    ability = draw.normal(size=(2, 400)) + np.array([[shift], [0]])
    answers = ability[:, None] + 0.4 * draw.normal(size=(2, 5, 400)) > 0
    bound = largest_test_part(answers[0].mean(axis=1), answers[1].mean(axis=1), 400)
    assert 0 < compare(answers[0], answers[1]).test_part <= bound
    opposite = np.tile([True, False], 200)[None].repeat(3, axis=0)
    worst = np.var(opposite[0].astype(float) - ~opposite[0], ddof=1) / 400
    found = largest_test_part(opposite.mean(axis=1), (~opposite).mean(axis=1), 400)
    assert found == pytest.approx(worst)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="paired"):
        compare_scores([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match="not finite"):
        compare_scores([0.1, np.nan], [0.1, 0.2])
    with pytest.raises(ValueError, match="Use shares"):
        largest_test_part([80.0], [70.0], 100)
