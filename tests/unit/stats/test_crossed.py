import numpy as np
import pytest
from scipy import stats

from transferlab.stats.crossed import Comparison, compare, half_width, p_greater


def scores(seed: int, n: int = 4, M: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Two arms of floats with a run effect, an item effect and noise in their difference."""
    rng = np.random.default_rng(seed)
    items, runs = rng.normal(size=M), rng.normal(size=(n, 1))
    return 0.1 + items + 0.2 * runs + rng.normal(size=(n, M)), 0.3 * rng.normal(size=(n, M))


def numbers(comparison: Comparison) -> dict[str, float]:
    return {key: value for key, value in vars(comparison).items() if key != "flags"}


def unequal_clusters(rng: np.random.Generator, clusters: int) -> np.ndarray:
    return np.repeat(np.arange(clusters), rng.integers(1, 7, size=clusters))


def test_parts_equal_a_hand_analysis_of_variance() -> None:
    transfer, scratch = np.array([[1, 1, 0], [1, 0, 0]]), np.array([[0, 0, 0], [0, 0, 1]])
    # D = [[1, 1, 0], [1, 0, -1]]: run means 2/3 and 0, item means 1, 1/2, -1/2, grand mean 1/3.
    comparison = compare(transfer.astype(bool), scratch.astype(bool))
    interaction = 2 * ((1 / 3) ** 2 + 2 * (1 / 6) ** 2) / (1 * 2)
    items = 2 * ((2 / 3) ** 2 + (1 / 6) ** 2 + (5 / 6) ** 2) / 2
    assert comparison.delta == pytest.approx(1 / 3)
    assert comparison.run_part == pytest.approx(((1 / 3) ** 2 * 2) / 1 / 2)
    assert comparison.test_part == pytest.approx((items - interaction) / 6)
    assert (comparison.n_pairs, comparison.n_items, comparison.reason) == (2, 3, "")


def test_variance_parts_recover_the_generator() -> None:
    rng = np.random.default_rng(3)
    parts = []
    for _ in range(300):
        D = rng.normal(size=80) + 0.5 * rng.normal(size=(6, 1)) + 2 * rng.normal(size=(6, 80))
        comparison = compare(D, 0 * D)
        parts.append((comparison.run_part, comparison.test_part))
    A, B = np.mean(parts, axis=0)
    assert pytest.approx(0.25 / 6 + 4 / (6 * 80), rel=0.1) == A  # run variance and what noise adds
    assert pytest.approx(1 / 80, rel=0.1) == B


def test_swapping_the_arms_flips_only_the_sign() -> None:
    transfer, scratch = scores(0)
    one, other = compare(transfer, scratch), compare(scratch, transfer)
    assert one.delta == pytest.approx(-other.delta)
    assert (one.run_part, one.test_part) == pytest.approx((other.run_part, other.test_part))


def test_order_of_replicates_and_items_does_not_count() -> None:
    transfer, scratch = scores(1)
    clusters, classes = np.arange(60) // 4, np.arange(60) // 20
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(4), rng.permutation(60)
    straight = compare(transfer, scratch, clusters=clusters, classes=classes)
    shuffled = compare(
        transfer[rows][:, columns],
        scratch[rows][:, columns],
        clusters=clusters[columns],
        classes=classes[columns],
    )
    assert numbers(straight) == pytest.approx(numbers(shuffled))


def test_clusters_of_one_item_change_nothing() -> None:
    transfer, scratch = scores(2)
    plain, clustered = compare(transfer, scratch), compare(transfer, scratch, clusters=range(60))
    assert numbers(plain) == pytest.approx(numbers(clustered))


def test_equal_clusters_are_the_items() -> None:
    transfer, scratch = scores(3)
    means = [arm.reshape(4, 12, 5).mean(axis=2) for arm in (transfer, scratch)]
    clustered = compare(transfer, scratch, clusters=np.arange(60) // 5)
    assert numbers(clustered) == pytest.approx(numbers(compare(*means)))


def test_unequal_clusters_keep_the_mean_over_images_and_ignore_a_constant() -> None:
    rng = np.random.default_rng(5)
    clusters = unequal_clusters(rng, 30)
    transfer, scratch = scores(5, M=len(clusters))
    one = compare(transfer, scratch, clusters=clusters)
    moved = compare(transfer + 10.0, scratch, clusters=clusters)
    assert one.delta == pytest.approx((transfer - scratch).mean())
    assert one.run_part == pytest.approx((transfer - scratch).mean(axis=1).var(ddof=1) / 4)
    assert (moved.run_part, moved.test_part) == pytest.approx((one.run_part, one.test_part))
    assert one.n_items == 30


def test_test_part_of_unequal_clusters_is_the_variance_of_the_ratio() -> None:
    rng = np.random.default_rng(6)
    estimates, parts = [], []
    for _ in range(1500):
        clusters = unequal_clusters(rng, 60)
        size = np.bincount(clusters)
        # Large clusters score differently, so that the ratio's own covariance counts.
        D = 0.3 + 0.1 * size[clusters] + rng.normal(size=60)[clusters] + np.zeros((3, 1))
        D = D + 1e-3 * rng.normal(size=D.shape)
        comparison = compare(D, 0 * D, clusters=clusters)
        estimates.append(comparison.delta)
        parts.append(comparison.test_part)
    assert np.mean(parts) == pytest.approx(np.var(estimates), rel=0.12)


def test_copies_of_an_image_add_nothing_once_they_form_a_cluster() -> None:
    transfer, scratch = scores(7)
    copies = np.repeat(np.arange(60), 3)
    blind = compare(transfer[:, copies], scratch[:, copies])
    aware = compare(transfer[:, copies], scratch[:, copies], clusters=copies)
    assert numbers(aware) == pytest.approx(numbers(compare(transfer, scratch)))
    assert blind.test_part < 0.5 * aware.test_part


def test_classes_average_the_classes_own_difference() -> None:
    transfer, scratch = scores(8)
    classes = np.array(["a"] * 10 + ["b"] * 50)
    macro = compare(transfer, scratch, classes=classes)
    parts = [compare(transfer[:, own], scratch[:, own]) for own in (classes == "a", classes == "b")]
    D = transfer - scratch
    runs = (D[:, :10].mean(axis=1) + D[:, 10:].mean(axis=1)) / 2
    assert macro.delta == pytest.approx(runs.mean())
    assert macro.run_part == pytest.approx(runs.var(ddof=1) / 4)
    assert macro.test_part == pytest.approx(sum(part.test_part for part in parts) / 4)


def test_clusters_inside_classes_are_handled_class_by_class() -> None:
    rng = np.random.default_rng(9)
    clusters = unequal_clusters(rng, 24)
    classes = clusters // 8  # three classes of eight clusters
    transfer, scratch = scores(9, M=len(clusters))
    both = compare(transfer, scratch, clusters=clusters, classes=classes)
    parts = [
        compare(transfer[:, own], scratch[:, own], clusters=clusters[own])
        for own in (classes == kind for kind in range(3))
    ]
    assert both.delta == pytest.approx(np.mean([part.delta for part in parts]))
    assert both.test_part == pytest.approx(sum(part.test_part for part in parts) / 9)


def test_clusters_across_classes_carry_their_covariance() -> None:
    rng = np.random.default_rng(10)
    clusters, classes = np.repeat(np.arange(50), 4), np.tile([0, 0, 0, 1], 50)
    estimates, parts = [], []
    for _ in range(800):
        D = rng.normal(size=50)[clusters] + 0.2 * rng.normal(size=200) + np.zeros((3, 1))
        D = D + 1e-3 * rng.normal(size=D.shape)
        comparison = compare(D, 0 * D, clusters=clusters, classes=classes)
        estimates.append(comparison.delta)
        parts.append(comparison.test_part)
    assert np.mean(parts) == pytest.approx(np.var(estimates), rel=0.15)


def test_scope_widens_the_run_part_alone() -> None:
    """s^2 (1 / n + rho / (1 - rho)) with s^2 = n A; n = 4 and rho = .2 make it A (1 + 4 / 4)."""
    transfer, scratch = scores(11)
    pool, new = compare(transfer, scratch), compare(transfer, scratch, rho=0.2)
    assert (new.delta, new.run_part, new.test_part) == (pool.delta, pool.run_part, pool.test_part)
    assert pool.widened_run_part == pool.run_part
    assert new.widened_run_part == pytest.approx(2 * pool.run_part)
    assert new.widened_run_part == pytest.approx(pool.run_part * (1 / 4 + 0.2 / 0.8) * 4)
    assert new.target_part == pytest.approx(pool.run_part)
    assert (pool.rho, new.rho) == (0.0, 0.2)


def test_ten_folds_have_the_variance_of_nadeau_and_bengio() -> None:
    """Cross-validation trains on 9 of 10 folds; theirs is s^2 (1/10 + 1/9) with rho = 1/10."""
    transfer, scratch = scores(12, n=10)
    found = compare(transfer, scratch, rho=0.1)
    runs = (transfer - scratch).mean(axis=1)
    assert found.widened_run_part == pytest.approx(runs.var(ddof=1) * (1 / 10 + 1 / 9))


def test_the_whole_pool_says_nothing_of_new_data() -> None:
    transfer, scratch = scores(13)
    for rho in (1.0, 2.5):
        whole = compare(transfer, scratch, rho=rho)
        assert whole.reason == "scope_not_estimable"
        assert np.isnan(whole.widened_run_part)
        assert whole.delta == compare(transfer, scratch).delta
    assert compare(scratch, scratch, rho=1.0).reason == "scope_not_estimable"
    assert compare(transfer[:1], scratch[:1], rho=1.0).reason == "single_replicate"


@pytest.mark.parametrize("rho", [-0.1, np.nan])
def test_a_share_below_zero_is_refused(rho: float) -> None:
    with pytest.raises(ValueError, match=f"rho={rho} is no share.*subset size over pool size"):
        compare(*scores(14), rho=rho)


@pytest.mark.parametrize("n", [2, 5, 12])
def test_without_a_test_part_the_interval_is_the_paired_t(n: int) -> None:
    runs = np.random.default_rng(n).normal(0.5, 1.0, size=n)
    A = float(runs.var(ddof=1) / n)
    reference = stats.ttest_1samp(runs, 0.0)
    low, high = reference.confidence_interval(0.95)
    assert half_width(A, 0.0, n, 0.05) == pytest.approx((high - low) / 2)
    assert 2 * p_greater(abs(runs.mean()), A, 0.0, n) == pytest.approx(reference.pvalue, rel=1e-8)


def test_with_many_runs_the_interval_is_normal() -> None:
    assert half_width(0.3, 0.7, 10**7, 0.05) == pytest.approx(stats.norm.isf(0.025), rel=1e-5)
    assert p_greater(2.0, 0.3, 0.7, 10**7) == pytest.approx(stats.norm.sf(2.0), rel=1e-4)


@pytest.mark.parametrize("A", [1e-9, 0.2, 1.0])
@pytest.mark.parametrize("B", [0.0, 1e-9, 0.5])
@pytest.mark.parametrize("p", [1e-12, 0.01, 0.4])
def test_p_is_where_the_interval_touches_zero(A: float, B: float, p: float) -> None:
    assert p_greater(half_width(A, B, 4, 2 * p), A, B, 4) == pytest.approx(p, rel=1e-6)


def test_p_of_both_directions_adds_to_one_and_extremes_stay_finite() -> None:
    assert p_greater(0.3, 0.1, 0.2, 5) + p_greater(-0.3, 0.1, 0.2, 5) == pytest.approx(1.0)
    assert p_greater(0.0, 0.1, 0.2, 5) == 0.5
    assert 0 < p_greater(1e9, 1e-9, 1e-9, 400) <= 1e-299
    assert np.isnan(p_greater(1.0, np.nan, 0.1, 5))


def test_run_means_that_tie_by_chance_are_no_certainty() -> None:
    D = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0]])
    comparison = compare(D, 0 * D)
    assert comparison.flags == ("equal_run_means",)
    # Residuals are four halves: their mean square over nM is the noise's share of a run mean.
    assert comparison.run_part == pytest.approx((4 * 0.25 / 3) / 8)


def test_classes_that_cancel_are_no_certainty() -> None:
    D = np.array([[0.1, 0.1, -0.1, -0.1], [-0.1, -0.1, 0.1, 0.1]])
    comparison = compare(D, 0 * D, classes=[0, 0, 1, 1])
    assert comparison.run_part > 0
    assert comparison.delta == pytest.approx(0)
