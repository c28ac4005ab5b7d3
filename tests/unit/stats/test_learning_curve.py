import numpy as np
import pytest
from scipy import stats

from transferlab.stats.learning_curve import Amount, crossover, data_equivalent, harm_slope

SIZES = np.array([10, 20, 40, 80, 160])


def rising(sizes: np.ndarray, n: int = 12, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """(S, n) accuracies that rise by .1 a doubling from .3 at 10 images, runs shifted at random."""
    rng = np.random.default_rng(seed)
    curve = 0.3 + 0.1 * np.log2(np.asarray(sizes) / 10)
    return curve[:, None] + noise * rng.standard_normal((1, n))


def test_twice_the_images_are_worth_twice_the_images() -> None:
    found = data_equivalent(SIZES, rising(SIZES), rising(2 * SIZES))
    for entry in found[:-1]:
        assert entry.equivalent.images == pytest.approx(2 * entry.size)
        assert entry.multiplier == pytest.approx(2.0)
        assert entry.transferred == pytest.approx(entry.size)
        assert entry.low.images == pytest.approx(entry.high.images)
    assert found[-1].equivalent == Amount(160.0, ">=")
    assert str(found[-1].equivalent) == ">= 160"
    assert [entry.size for entry in found] == SIZES.tolist()


def test_harm_costs_images_and_is_censored_below() -> None:
    found = data_equivalent(SIZES, rising(SIZES), rising(SIZES / 2))
    assert found[0].equivalent == Amount(10.0, "<")
    for entry in found[1:]:
        assert entry.multiplier == pytest.approx(0.5)
        assert entry.transferred < 0


def test_equal_arms_are_worth_their_own_images() -> None:
    scores = rising(SIZES, noise=0.02)
    for entry in data_equivalent(SIZES, scores, scores):
        assert entry.equivalent.images == pytest.approx(entry.size)
        assert (entry.low.images, entry.high.images) == pytest.approx((entry.size, entry.size))


def test_between_sizes_the_curve_is_straight_in_log_images() -> None:
    scratch = np.array([[0.2], [0.4]])
    (entry, _) = data_equivalent([10, 1000], scratch, [[0.3], [0.4]])
    assert entry.equivalent.images == pytest.approx(100.0)


def test_a_falling_stretch_is_pooled_and_a_flat_one_claims_nothing() -> None:
    scratch = np.array([0.2, 0.5, 0.4, 0.6])[:, None]
    sizes = [10, 20, 40, 80]  # pooled: .2 .45 .45 .6
    flat = np.full((4, 1), 0.45)
    found = [entry.equivalent.images for entry in data_equivalent(sizes, scratch, flat)]
    assert found == pytest.approx([20, 20, 40, 40])
    halfway = data_equivalent(sizes, scratch, np.full((4, 1), 0.525))
    assert halfway[0].equivalent.images == pytest.approx(np.sqrt(40 * 80))


def test_a_curve_without_any_rise() -> None:
    scratch, transfer = np.full((3, 2), 0.5), np.array([[0.5] * 2, [0.6] * 2, [0.4] * 2])
    found = data_equivalent([1, 2, 3], scratch, transfer)
    assert [str(entry.equivalent) for entry in found] == ["1", ">= 3", "< 1"]


def test_few_replicates_show_their_range() -> None:
    shifts = np.array([0.0, 0.05, 0.1])
    scratch = rising(SIZES, n=3)
    (entry, *_) = data_equivalent(SIZES, scratch, scratch + shifts)
    assert entry.kind == "range"
    assert entry.low.images == pytest.approx(10.0)
    assert entry.high.images == pytest.approx(20.0)
    assert entry.equivalent.images == pytest.approx(10 * 2**0.5)
    (single, *_) = data_equivalent(SIZES, scratch[:, :1], scratch[:, :1] + 0.1)
    assert (single.kind, single.equivalent.images) == ("none", pytest.approx(20.0))
    assert np.isnan([single.low.images, single.high.images]).all()


def test_replicates_are_drawn_in_pairs() -> None:
    """A shift that both arms of a replicate share leaves the equivalent where it is."""
    shared = rising(SIZES, n=20, noise=0.03)
    found = data_equivalent(SIZES, shared, shared + 0.1)[1]
    assert (found.low.images, found.high.images) == pytest.approx((40.0, 40.0))
    unpaired = data_equivalent(SIZES, shared, rising(SIZES, 20, 0.03, seed=1) + 0.1)[1]
    assert unpaired.high.images > 1.1 * unpaired.low.images
    assert unpaired.kind == "interval"


def test_the_interval_is_that_of_the_percentile_bootstrap() -> None:
    """On a straight curve ln of the equivalent is linear in the mean gain."""
    gains = 0.1 + 0.03 * np.random.default_rng(2).standard_normal(40)
    scratch = rising(SIZES, n=40)
    found = data_equivalent(SIZES, scratch, scratch + gains, draws=4000)[1]
    reference = stats.bootstrap(
        (gains,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(3)
    ).confidence_interval
    ends = [20 * 2 ** (gain / 0.1) for gain in reference]
    assert (found.low.images, found.high.images) == pytest.approx(ends, rel=0.02)


def test_ends_of_an_interval_may_be_censored() -> None:
    scratch = rising(SIZES, n=20)
    gains = np.where(np.arange(20) < 10, -0.2, 0.6)
    found = data_equivalent(SIZES, scratch, scratch + gains, level=0.99)[3]
    assert found.high == Amount(160.0, ">=")
    assert found.low.censored == ""


def test_draws_repeat_with_their_seed_and_leave_the_global_state_alone() -> None:
    scratch, transfer = rising(SIZES, 12, 0.02), rising(SIZES, 12, 0.02, seed=4) + 0.05
    before = np.random.get_state()[1].copy()
    first, again = (data_equivalent(SIZES, scratch, transfer, seed=1) for _ in range(2))
    assert first == again
    assert (np.random.get_state()[1] == before).all()
    assert first != data_equivalent(SIZES, scratch, transfer, seed=2)


@pytest.mark.slow
def test_the_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(300):
        scratch, transfer = (rising(s, 15) for s in (SIZES, 1.5 * SIZES))
        noise = 0.03 * rng.standard_normal((2, 5, 15))
        found = data_equivalent(SIZES, scratch + noise[0], transfer + noise[1], draws=300)[2]
        hits += found.low.images <= 60 <= found.high.images
    assert hits / 300 > 0.87  # a percentile interval over 15 runs is somewhat narrow


@pytest.mark.parametrize(
    ("words", "bracket"),
    [
        (["positive", "positive", "inconclusive", "negative"], (20.0, 40.0)),
        (["positive", "inconclusive", "positive", "equivalent"], (40.0, 80.0)),
        (["positive"] * 4, (80.0, None)),
        (["negative", "equivalent", "not_assessable", "inconclusive"], (None, 10.0)),
    ],
)
def test_crossover_brackets_the_last_help(
    words: list[str], bracket: tuple[float | None, float | None]
) -> None:
    found = crossover([10, 20, 40, 80], words)
    assert (found.last_positive, found.first_without) == bracket


def test_crossover_of_a_single_size() -> None:
    assert crossover([7], ["positive"]).last_positive == 7.0
    assert crossover([7], ["negative"]).first_without == 7.0


def test_slope_is_the_least_squares_slope_tested_by_t() -> None:
    rng = np.random.default_rng(6)
    gains = -0.2 + 0.03 * np.log(SIZES)[:, None] + 0.02 * rng.standard_normal((5, 8))
    slopes = np.polyfit(np.log(SIZES), gains, 1)[0]
    reference = stats.ttest_1samp(slopes, 0.0)
    found = harm_slope(SIZES, gains)
    assert found.per_replicate == pytest.approx(slopes)
    assert found.value == pytest.approx(slopes.mean())
    assert found.p == pytest.approx(reference.pvalue)
    assert found.ci95 == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert found.ci95[0] > 0
    assert (found.value, found.reason) == (pytest.approx(0.03, abs=0.01), "")


def test_slope_of_a_closed_form_and_its_symmetries() -> None:
    base = np.log2(SIZES)[:, None] * np.array([1.0, 2.0])
    assert harm_slope(SIZES, base).value * np.log(2) == pytest.approx(1.5)
    assert harm_slope(SIZES, base + 7).value == pytest.approx(harm_slope(SIZES, base).value)
    assert harm_slope(SIZES, -base).p == pytest.approx(harm_slope(SIZES, base).p)
    assert harm_slope(10 * SIZES, base).p == pytest.approx(harm_slope(SIZES, base).p)


def test_slopes_that_show_no_spread_are_no_certainty() -> None:
    same = np.log(SIZES)[:, None] * np.ones(5)
    assert harm_slope(SIZES, same).reason == "degenerate"
    assert harm_slope(SIZES, 0 * same).reason == "degenerate"
    single = harm_slope(SIZES, same[:, :1])
    assert (single.value, single.reason) == (pytest.approx(1.0), "single_replicate")
    assert np.isnan([single.p, *single.ci95]).all()


def test_wrong_inputs_are_named() -> None:
    good = rising(SIZES, 3)
    for sizes in ([10], [10, 10], [20, 10]):
        with pytest.raises(ValueError, match="don't rise"):
            harm_slope(sizes, good[: len(sizes)])
    with pytest.raises(ValueError, match="Use numbers above 0"):
        harm_slope([0, 1], good[:2])
    with pytest.raises(ValueError, match=r"deltas has shape \(5, 3\) for 2 sizes"):
        harm_slope([1, 2], good)
    with pytest.raises(ValueError, match="paired"):
        data_equivalent(SIZES, good, good[:, :2])
    broken = good.copy()
    broken[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"scratch\[1, 2\] is nan.*Drop replicate 2"):
        data_equivalent(SIZES, broken, good)
    for wrong in ({"level": 1.0}, {"draws": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
            data_equivalent(SIZES, good, good, **wrong)
    with pytest.raises(ValueError, match="1 words for 2 sizes"):
        crossover([1, 2], ["positive"])
    with pytest.raises(ValueError, match="unknown: helps"):
        crossover([1, 2], ["positive", "helps"])
