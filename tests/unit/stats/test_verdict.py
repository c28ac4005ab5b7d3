import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from transferlab.stats.crossed import Comparison, compare
from transferlab.stats.verdict import adjust, transfer_verdict


def arms(gain: float, n: int = 6, M: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correctness of two arms of accuracy about .7, the first better by about ``gain``."""
    rng = np.random.default_rng(seed)
    ability = rng.random(M)
    transfer = ability + 0.1 * rng.normal(size=(n, M)) < 0.7 + gain
    return transfer, ability + 0.1 * rng.normal(size=(n, M)) < 0.7


def test_the_four_verdicts() -> None:
    helps, hurts = transfer_verdict(*arms(0.15)), transfer_verdict(*arms(-0.15))
    assert (helps.verdict, hurts.verdict) == ("positive", "negative")
    assert helps.beyond_margin
    assert helps.ci95[0] > 0 > hurts.ci95[1]
    same = transfer_verdict(*arms(0.0, n=12, M=20000))
    assert (same.verdict, same.flags) == ("equivalent", ())
    open_question = transfer_verdict(*arms(0.02, n=3, M=100))
    assert (open_question.verdict, open_question.reason) == ("inconclusive", "")


def test_swapping_the_arms_mirrors_everything() -> None:
    transfer, scratch = arms(0.03)
    one, other = transfer_verdict(transfer, scratch), transfer_verdict(scratch, transfer)
    assert one.delta == pytest.approx(-other.delta)
    assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]))
    mirrored = (other.p_sign, other.p_equiv, other.p_beyond)
    assert (one.p_sign, one.p_equiv, one.p_beyond) == pytest.approx(mirrored)


@pytest.mark.parametrize("seed", range(20))
def test_intervals_and_p_values_agree(seed: int) -> None:
    verdict = transfer_verdict(*arms(0.04, n=4, seed=seed))
    assert (verdict.p_sign < 0.05) == (verdict.ci95[0] > 0 or verdict.ci95[1] < 0)
    assert verdict.ci95 == verdict.ci_family
    assert (verdict.verdict == "inconclusive") == (verdict.seeds_needed.state != "enough")


def test_without_a_test_part_it_is_the_paired_t_test() -> None:
    # Every item moves alike within a run, so items carry no variance of their own.
    runs = np.array([[0.3], [0.1], [0.4], [0.2], [-0.1]])
    verdict = transfer_verdict(np.repeat(runs, 50, axis=1), np.zeros((5, 50)))
    reference = stats.ttest_1samp(runs[:, 0], 0.0)
    assert verdict.p_sign == pytest.approx(reference.pvalue)
    assert verdict.ci95 == pytest.approx(tuple(reference.confidence_interval(0.95)))


def test_a_real_difference_may_be_too_small_to_matter() -> None:
    rng = np.random.default_rng(0)
    transfer = 0.002 + 1e-4 * rng.normal(size=(6, 500))
    verdict = transfer_verdict(transfer, np.zeros((6, 500)))
    assert verdict.verdict == "equivalent"
    assert "detectable_sign" in verdict.flags
    assert transfer_verdict(transfer, np.zeros((6, 500)), margin=0.001).verdict == "positive"


def test_one_replicate_has_no_interval() -> None:
    verdict = transfer_verdict(*arms(0.5, n=1))
    assert (verdict.verdict, verdict.reason) == ("inconclusive", "single_replicate")
    assert verdict.delta > 0.2
    assert np.isnan([*verdict.ci95, verdict.p_sign, verdict.p_equiv, verdict.run_part]).all()
    assert verdict.seeds_needed.state == "unknown"
    assert not verdict.beyond_margin


def test_identical_predictions_are_equivalent() -> None:
    transfer, _ = arms(0.0)
    verdict = transfer_verdict(transfer, transfer)
    assert (verdict.verdict, verdict.reason) == ("equivalent", "identical_predictions")
    assert (verdict.delta, verdict.ci95) == (0.0, (0.0, 0.0))
    assert (verdict.p_sign, verdict.p_equiv, verdict.p_beyond) == (1.0, 0.0, 1.0)


@pytest.mark.parametrize("rounding", [0.0, 1e-16])
def test_runs_that_are_copies_are_refused_and_never_a_certainty(rounding: float) -> None:
    transfer, scratch = (np.repeat(arm[:1], 5, axis=0).astype(float) for arm in arms(0.3))
    transfer = transfer + rounding * np.random.default_rng(0).normal(size=transfer.shape)
    verdict = transfer_verdict(transfer, scratch)
    assert (verdict.verdict, verdict.reason) == ("not_assessable", "degenerate")
    assert np.isnan(verdict.p_sign)


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")
def test_where_a_t_test_is_certain_of_copies_the_verdict_is_not() -> None:
    transfer, scratch = (np.repeat(arm[:1], 5, axis=0) for arm in arms(0.3))
    runs = transfer.mean(axis=1) - scratch.mean(axis=1)
    assert stats.ttest_1samp(runs, 0.0).pvalue < 1e-12
    assert np.isnan(transfer_verdict(transfer, scratch).unadjusted.sign)


def test_a_replicate_that_is_not_finite_is_never_dropped_in_silence() -> None:
    runs = np.array([[0.1], [0.2], [np.nan], [0.15]]) * np.ones((1, 3))
    assert stats.ttest_1samp(runs[:, 0], 0.0, nan_policy="omit").pvalue < 0.05
    with pytest.raises(ValueError, match=r"transfer\[2, 0\] is nan"):
        transfer_verdict(runs, np.zeros((4, 3)))


def test_five_replicates_can_decide_where_ranks_alone_cannot() -> None:
    """The smallest two-sided p of a signed-rank or sign-flip test of five runs is 2 / 2^5."""
    transfer, scratch = arms(0.15, n=5)
    runs = transfer.mean(axis=1) - scratch.mean(axis=1)
    assert stats.wilcoxon(runs).pvalue == pytest.approx(0.0625)
    assert transfer_verdict(transfer, scratch).verdict == "positive"


def test_a_constant_difference_is_degenerate_in_spite_of_rounding() -> None:
    scratch = np.random.default_rng(0).random((5, 30))
    assert transfer_verdict(scratch + 0.1, scratch).reason == "degenerate"


def test_tied_run_means_are_flagged_and_undecided() -> None:
    transfer, scratch = np.array([[1, 0, 1, 0], [0, 1, 1, 0]]), np.array([[0] * 4] * 2)
    verdict = transfer_verdict(transfer, scratch)
    assert verdict.verdict == "inconclusive"
    assert "equal_run_means" in verdict.flags
    assert verdict.run_part > 0


def test_one_item_says_nothing_about_items() -> None:
    wide = np.array([[0.9], [0.8], [0.95]]), np.array([[0.1], [0.2], [0.1]])
    assert transfer_verdict(*wide).reason == "single_item"
    transfer, scratch = arms(0.3, M=20)
    assert transfer_verdict(transfer, scratch, clusters=[0] * 20).reason == "single_item"
    lonely = transfer_verdict(transfer, scratch, classes=[0] + [1] * 19)
    assert (lonely.verdict, lonely.reason) == ("inconclusive", "single_item")


def test_few_replicates_are_flagged() -> None:
    assert "few_replicates" in transfer_verdict(*arms(0.1, n=4)).flags
    assert "few_replicates" not in transfer_verdict(*arms(0.1, n=5)).flags


def test_a_margin_this_test_set_cannot_resolve_is_flagged() -> None:
    small, large = transfer_verdict(*arms(0.15, M=50)), transfer_verdict(*arms(0.0, M=20000))
    assert {"margin_below_test_floor", "margin_below_one_item"} <= set(small.flags)
    assert not {"margin_below_test_floor", "margin_below_one_item"} & set(large.flags)
    assert "margin_below_one_item" not in transfer_verdict(*arms(0.0, M=100)).flags


def test_more_seeds_cannot_help_is_said() -> None:
    rng = np.random.default_rng(1)
    transfer = 0.04 + rng.normal(size=60) + 0.01 * rng.normal(size=(8, 60))
    verdict = transfer_verdict(transfer, np.zeros((8, 60)))
    assert verdict.verdict == "inconclusive"
    assert "test_set_limits" in verdict.flags
    assert verdict.seeds_needed.test_items_needed is not None
    assert verdict.seeds_needed.test_items_needed > 60


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_named(value: float) -> None:
    transfer, scratch = (arm.astype(float) for arm in arms(0.1))
    scratch[2, 7] = value
    with pytest.raises(ValueError, match=rf"scratch\[2, 7\] is {value}.*Drop replicate 2"):
        transfer_verdict(transfer, scratch)


@pytest.mark.parametrize(
    ("transfer", "scratch", "message"),
    [
        (np.ones((3, 4)), np.ones((2, 4)), r"\(3, 4\) and scratch \(2, 4\).*Keep the replicates"),
        (np.ones(4), np.ones(4), r"\(4,\), not \(replicates, items\).*scores\[None, :\]"),
        (np.ones((0, 4)), np.ones((0, 4)), r"\(0, 4\)"),
        ([[1, 0], [1]], [[1, 0], [1, 1]], "no rectangle.*Pass booleans or floats"),
    ],
)
def test_shapes_that_do_not_pair_are_refused(
    transfer: np.ndarray, scratch: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        transfer_verdict(transfer, scratch)


@pytest.mark.parametrize("name", ["clusters", "classes"])
def test_ids_must_be_one_per_item(name: str) -> None:
    transfer, scratch = arms(0.1, M=6)
    with pytest.raises(ValueError, match=rf"{name} has shape \(5,\), not \(6,\)"):
        transfer_verdict(transfer, scratch, **{name: np.arange(5)})
    for missing in (np.nan, None):
        ids = np.array([0, 1, 2, 3, 4, missing], dtype=object)
        with pytest.raises(ValueError, match=f"{name} has items without an id"):
            transfer_verdict(transfer, scratch, **{name: ids})


@pytest.mark.parametrize(
    "options", [{"margin": 0.0}, {"margin": np.nan}, {"alpha": 0.0}, {"alpha": 0.5}]
)
def test_error_rates_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}=.*Use a number"):
        transfer_verdict(*arms(0.1), **options)


def test_a_claim_about_new_data_is_the_correlated_t_test() -> None:
    """Without a test part it is Student's t on s^2 (1 / n + rho / (1 - rho))."""
    runs = np.array([[0.3], [0.1], [0.4], [0.2], [-0.1]])
    sides = np.repeat(runs, 50, axis=1), np.zeros((5, 50))
    pool, new = (adjust([compare(*sides, rho=rho)])[0] for rho in (0.0, 0.2))
    error = (runs.var(ddof=1) * (1 / 5 + 0.25)) ** 0.5
    assert new.p_sign == pytest.approx(2 * stats.t.sf(runs.mean() / error, 4))
    half = stats.t.isf(0.025, 4) * error
    assert new.ci95 == pytest.approx((runs.mean() - half, runs.mean() + half))
    assert new.run_part == pool.run_part == pool.widened_run_part
    assert new.widened_run_part == pytest.approx(error**2)
    assert (pool.rho, new.rho) == (0.0, 0.2)


def test_a_wider_claim_is_never_surer() -> None:
    comparisons = [compare(*arms(0.04), rho=rho) for rho in (0.0, 0.1, 0.5, 0.9)]
    p = [adjust([each], margin=0.1)[0].unadjusted for each in comparisons]
    assert [each.sign for each in p] == sorted(each.sign for each in p)
    assert [each.equiv for each in p] == sorted(each.equiv for each in p)


def test_a_claim_that_no_pool_supports_is_undecided() -> None:
    verdict = adjust([compare(*arms(0.3), rho=1.0)])[0]
    assert (verdict.verdict, verdict.reason) == ("inconclusive", "scope_not_estimable")
    assert np.isnan([*verdict.ci95, *verdict.ci_family, verdict.p_sign, verdict.p_equiv]).all()
    assert verdict.delta > 0.1
    assert verdict.run_part > 0
    assert verdict.seeds_needed.state == "more_target_data"
    assert not verdict.beyond_margin


def test_more_target_data_is_what_is_said_to_be_missing() -> None:
    rng = np.random.default_rng(3)
    runs = 0.02 + 0.03 * rng.normal(size=(20, 1)) + np.zeros((1, 200))
    verdict = adjust([compare(runs, 0 * runs, rho=0.5)])[0]
    assert verdict.verdict == "inconclusive"
    assert "target_data_limits" in verdict.flags
    assert "test_set_limits" not in verdict.flags
    pool = adjust([compare(runs, 0 * runs)])[0]
    assert "target_data_limits" not in pool.flags


def test_a_verdict_becomes_plain_json() -> None:
    record = json.loads(json.dumps(asdict(transfer_verdict(*arms(0.15)))))
    assert record["verdict"] == "positive"
    assert record["beyond_margin"] is True
    assert record["seeds_needed"]["state"] == "enough"


def test_a_family_of_one_is_the_plain_verdict() -> None:
    transfer, scratch = arms(0.05)
    assert adjust([compare(transfer, scratch)]) == [transfer_verdict(transfer, scratch)]


def member(p: float, n: int = 6) -> Comparison:
    """A comparison whose two-sided sign test has the given p."""
    return Comparison(float(stats.t.isf(p / 2, n - 1)), 1.0, 0.0, n, 100)


def test_a_family_is_adjusted_by_holm_over_its_declared_size() -> None:
    verdicts = adjust([member(0.02), member(0.012), member(0.2)], m=4)
    assert [each.p_sign for each in verdicts] == pytest.approx([0.06, 0.048, 0.4])
    assert [each.unadjusted.sign for each in verdicts] == pytest.approx([0.02, 0.012, 0.2])
    assert [each.verdict for each in verdicts] == ["inconclusive", "positive", "inconclusive"]
    assert {each.family_size for each in verdicts} == {4}


def test_a_family_interval_is_wider_and_a_missing_member_widens_it() -> None:
    pair = [member(0.02), member(0.3)]
    two, three = adjust(pair)[0], adjust(pair, m=3)[0]
    assert two.ci95 == three.ci95
    assert three.ci_family[0] < two.ci_family[0] < two.ci95[0]
    assert three.delta - three.ci_family[0] == pytest.approx(stats.t.isf(0.05 / 6, 5))


def test_looks_share_alpha() -> None:
    once, thrice = adjust([member(0.03)])[0], adjust([member(0.03)], looks=3)[0]
    assert (once.verdict, thrice.verdict) == ("positive", "inconclusive")
    assert thrice.p_sign == once.p_sign  # alpha shrinks, p does not grow
    assert thrice.delta - thrice.ci_family[0] == pytest.approx(stats.t.isf(0.05 / 6, 5))
    assert adjust([member(0.016)], looks=3)[0].verdict == "positive"
    assert thrice.seeds_needed.sign is not None
    assert once.seeds_needed.sign is not None
    assert thrice.seeds_needed.sign > once.seeds_needed.sign


def test_members_without_a_verdict_still_count() -> None:
    same = Comparison(0.0, 0.0, 0.0, 6, 100, "identical_predictions")
    alone = Comparison(0.1, np.nan, np.nan, 1, 100, "single_replicate")
    first, second, third = adjust([same, alone, member(0.02)])
    assert (first.verdict, second.verdict) == ("equivalent", "inconclusive")
    assert third.p_sign == pytest.approx(0.06)
    assert third.verdict == "inconclusive"


@pytest.mark.parametrize("options", [{"m": 1}, {"looks": 0}, {"m": 0}])
def test_a_family_smaller_than_its_members_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(options))}"):
        adjust([member(0.1), member(0.2)], **options)
