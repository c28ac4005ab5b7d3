"""Error rates and power of the verdict on simulated experiments with known truth."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from transferlab.stats.crossed import compare
from transferlab.stats.verdict import adjust, transfer_verdict

Arms = tuple[np.ndarray, np.ndarray]
Method = Callable[[np.ndarray, np.ndarray], str]


def simulate(
    rng: np.random.Generator,
    n: int,
    M: int,
    shifts: tuple[float, ...] = (0.0,),
    run_sd: float = 0.06,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Correctness of arms sharing items with one scratch arm, by a probit model."""
    ability = 1.2 * rng.standard_normal(M) + 0.9

    def arm(shift: float) -> np.ndarray:
        latent = ability + 0.7 * rng.standard_normal(M) + run_sd * rng.standard_normal((n, 1))
        return latent + 0.5 * rng.standard_normal((n, M)) + shift > 0

    return [arm(shift) for shift in shifts], arm(0.0)


def words(method: Method, n: int, M: int, repeats: int, shift: float = 0.0) -> Counter[str]:
    """Shares of the verdicts over simulated comparisons."""
    rng = np.random.default_rng([n, M, repeats])
    counts: Counter[str] = Counter()
    for _ in range(repeats):
        (transfer,), scratch = simulate(rng, n, M, (shift,))
        counts[method(transfer, scratch)] += 1
    return Counter({word: count / repeats for word, count in counts.items()})


def ours(transfer: np.ndarray, scratch: np.ndarray) -> str:
    return transfer_verdict(transfer, scratch).verdict


def seeds_only(transfer: np.ndarray, scratch: np.ndarray) -> str:
    """What a paired t test over run accuracies would say."""
    runs = transfer.mean(axis=1) - scratch.mean(axis=1)
    if np.ptp(runs) < 1e-12:
        return "inconclusive"
    p = stats.ttest_1samp(runs, 0.0).pvalue
    return "inconclusive" if p >= 0.05 else "negative" if runs.mean() < 0 else "positive"


def bootstrap(transfer: np.ndarray, scratch: np.ndarray) -> str:
    """What a percentile bootstrap over run accuracies would say."""
    runs = transfer.mean(axis=1) - scratch.mean(axis=1)
    picks = np.random.default_rng(0).integers(0, len(runs), size=(1000, len(runs)))
    low, high = np.percentile(runs[picks].mean(axis=1), [2.5, 97.5])
    return "negative" if high < 0 else "positive" if low > 0 else "inconclusive"


def assert_keeps_its_error_rate(method: Method, n: int, M: int, repeats: int) -> None:
    shares = words(method, n, M, repeats)
    assert shares["negative"] <= 0.035, shares
    assert shares["negative"] + shares["positive"] <= 0.07, shares


def test_a_short_check_of_the_error_rate() -> None:
    assert_keeps_its_error_rate(ours, 5, 150, 600)


def test_a_short_check_of_the_power() -> None:
    assert words(ours, 5, 500, 150, shift=-0.4)["negative"] >= 0.97


@pytest.mark.parametrize("method", [seeds_only, bootstrap])
def test_methods_that_ignore_the_test_set_fail_the_same_check(method: Method) -> None:
    with pytest.raises(AssertionError, match="negative"):
        assert_keeps_its_error_rate(method, 5, 150, 600)


@pytest.mark.slow
@pytest.mark.parametrize("M", [150, 2000])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_null_error_rates(n: int, M: int) -> None:
    assert_keeps_its_error_rate(ours, n, M, 2000)


@pytest.mark.slow
@pytest.mark.parametrize("method", [seeds_only, bootstrap])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_seed_only_methods_fail_the_null(method: Method, n: int) -> None:
    with pytest.raises(AssertionError, match="negative"):
        assert_keeps_its_error_rate(method, n, 150, 2000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shift", "n", "M", "least"), [(-0.4, 5, 500, 0.97), (-0.15, 10, 2000, 0.88)]
)
def test_power(shift: float, n: int, M: int, least: float) -> None:
    assert words(ours, n, M, 800, shift)["negative"] >= least


@pytest.mark.slow
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_difference_as_large_as_the_margin_is_rarely_equivalent(sign: int) -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(2000):
        items = 0.03 * rng.standard_normal(400) + 0.01 * sign
        D = items + 0.004 * rng.standard_normal((8, 1)) + 0.05 * rng.standard_normal((8, 400))
        hits += transfer_verdict(D, np.zeros_like(D)).verdict == "equivalent"
    assert 0.02 <= hits / 2000 <= 0.06  # not rare because it can't happen, either


@pytest.mark.slow
def test_a_large_experiment_shows_equivalence() -> None:
    rng = np.random.default_rng(8)
    verdicts = []
    for _ in range(10):
        (transfer,), scratch = simulate(rng, 20, 20000, run_sd=0.004)  # 0.1 points of accuracy
        verdicts.append(transfer_verdict(transfer, scratch).verdict)
    assert verdicts.count("equivalent") >= 7, verdicts


@pytest.mark.slow
def test_holm_keeps_the_familys_error_rate() -> None:
    rng = np.random.default_rng(11)
    adjusted = raw = 0
    for _ in range(1000):
        family, scratch = simulate(rng, 5, 500, (0.0,) * 8)
        comparisons = [compare(arm, scratch) for arm in family]
        adjusted += any(each.verdict == "negative" for each in adjust(comparisons))
        raw += any(adjust([each])[0].verdict == "negative" for each in comparisons)
    assert adjusted / 1000 <= 0.035
    assert raw / 1000 > 0.07  # the family is a real one: without Holm it fails


@pytest.mark.slow
def test_planned_looks_keep_the_error_rate_and_unplanned_ones_do_not() -> None:
    rng = np.random.default_rng(12)
    planned = unplanned = 0
    for _ in range(3000):
        runs = rng.normal(0.0, 0.015, size=(20, 1)) * np.ones((1, 2))
        seen = [compare(runs[:n], 0 * runs[:n]) for n in (5, 10, 20)]
        planned += any(adjust([look], looks=3)[0].verdict == "negative" for look in seen)
        unplanned += any(adjust([look])[0].verdict == "negative" for look in seen)
    assert planned / 3000 <= 0.03
    assert unplanned > 1.5 * planned


@pytest.mark.slow
def test_clusters_restore_the_error_rate_of_clustered_items() -> None:
    rng = np.random.default_rng(13)
    blind = aware = 0
    for _ in range(1200):
        sizes = rng.integers(1, 9, size=60)
        clusters = np.repeat(np.arange(60), sizes)
        ability = 0.9 + 1.2 * rng.standard_normal(60)[clusters]

        def arm(ability: np.ndarray = ability, clusters: np.ndarray = clusters) -> np.ndarray:
            latent = ability + 0.7 * rng.standard_normal(60)[clusters]
            noise = rng.standard_normal((5, len(clusters)))
            return latent + 0.06 * rng.standard_normal((5, 1)) + 0.5 * noise > 0

        transfer, scratch = arm(), arm()
        decided = ("positive", "negative")
        blind += ours(transfer, scratch) in decided
        aware += transfer_verdict(transfer, scratch, clusters=clusters).verdict in decided
    assert aware / 1200 <= 0.07
    assert blind / 1200 > 0.12


@pytest.mark.slow
def test_macro_recall_keeps_the_error_rate_on_unequal_classes() -> None:
    rng = np.random.default_rng(14)
    classes = np.repeat(np.arange(5), [200, 100, 50, 30, 20])
    wrong = 0
    for _ in range(1500):
        (transfer,), scratch = simulate(rng, 5, 400)
        verdict = transfer_verdict(transfer, scratch, classes=classes).verdict
        wrong += verdict in ("positive", "negative")
    assert wrong / 1500 <= 0.07


FITS = 20  # training items of a class


def fitted(
    stream: np.random.Generator, items: np.ndarray, labels: np.ndarray, n: int
) -> np.ndarray:
    """(n, M) answers of n nearest-centroid classifiers, each fitted to a draw of its own."""
    centres = np.array([[-0.5] + [0.0] * 7, [0.5] + [0.0] * 7])
    drawn = centres + stream.standard_normal((n, FITS, 2, 8))
    means = drawn.mean(axis=1)
    apart = ((items[None, :, None, :] - means[:, None]) ** 2).sum(axis=3)
    return apart.argmin(axis=2) == labels


@pytest.mark.slow
def test_arms_that_are_one_computation_under_several_names_are_not_told_apart() -> None:
    families, K, n, M = 200, 4, 5, 300
    wrong = same = 0
    for number in range(families):
        rng = np.random.default_rng([21, number])
        labels = rng.integers(0, 2, M)
        items = rng.standard_normal((M, 8))
        items[:, 0] += labels - 0.5
        names = ["scratch", *(f"arm {k}" for k in range(K))]
        streams = {name: np.random.default_rng([number, *name.encode()]) for name in names}
        arms = {name: fitted(streams[name], items, labels, n) for name in names}
        family = adjust([compare(arms[name], arms["scratch"]) for name in names[1:]])
        wrong += any(each.verdict in ("positive", "negative") for each in family)
        copies = [
            fitted(np.random.default_rng([number, *b"scratch"]), items, labels, n) for _ in range(K)
        ]
        again = adjust([compare(copy, arms["scratch"]) for copy in copies])
        same += all(each.reason == "identical_predictions" for each in again)
        assert {each.verdict for each in again} == {"equivalent"}
    assert wrong / families <= 0.05 + 2 * (0.05 * 0.95 / families) ** 0.5
    assert same == families


@pytest.mark.slow
def test_the_wider_scope_restores_the_error_rate_of_overlapping_subsets() -> None:
    """Subsets of m of P items whose worth adds up: the replicates' correlation is m / P."""
    rng = np.random.default_rng(22)
    P, m, n = 40, 20, 5
    counts = {0.0: 0, m / P: 0}
    for _ in range(2000):
        worth = rng.standard_normal(P)
        runs = np.stack([rng.choice(worth, m, replace=False).mean() for _ in range(n)])
        scores = 0.01 * runs[:, None] * np.ones((1, 2))
        for rho in counts:
            word = adjust([compare(scores, 0 * scores, rho=rho)], margin=1e-9)[0].verdict
            counts[rho] += word in ("positive", "negative")
    assert counts[0.0] / 2000 > 0.15
    assert counts[m / P] / 2000 <= 0.065
