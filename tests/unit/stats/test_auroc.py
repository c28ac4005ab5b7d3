import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from transferlab.stats.auroc import auroc, compare_auroc
from transferlab.stats.verdict import adjust


def binary(
    rng: np.random.Generator, n: int = 4, M: int = 120, run_sd: float = 0.1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of two arms of one law, whose items repeat over runs, and the labels."""
    labels = (np.arange(M) % 3 == 0).astype(int)
    ability = rng.standard_normal(M)

    def arm() -> np.ndarray:
        own = 0.7 * rng.standard_normal(M) + 0.5 * rng.standard_normal((n, M))
        strength = 1.2 + run_sd * rng.standard_normal((n, 1))
        return strength * labels + ability + own

    return arm(), arm(), labels


def several(
    rng: np.random.Generator, n: int = 3, M: int = 90, C: int = 4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = np.concatenate([np.arange(C), rng.choice(C, M - C, p=np.arange(1, C + 1) / 10)])
    sides = [np.eye(C)[labels] + rng.standard_normal((n, M, C)) for _ in range(2)]
    return sides[0], sides[1], labels


def delong(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> float:
    """Variance of the difference of two areas on one test set, straight from its definition."""
    parts = []
    for scores in (first, second):
        above = scores[labels == 1][:, None] - scores[labels == 0][None, :]
        kernel = (above > 0) + 0.5 * (above == 0)
        parts.append((kernel.mean(axis=1), kernel.mean(axis=0)))
    variance = 0.0
    for side in range(2):
        cov = np.cov(np.stack([part[side] for part in parts]))
        variance += (cov[0, 0] + cov[1, 1] - 2 * cov[0, 1]) / len(parts[0][side])
    return variance


@pytest.mark.parametrize("digits", [None, 0])  # rounded scores tie
def test_area_equals_scikit_learn(digits: int | None) -> None:
    rng = np.random.default_rng(0)
    first, second, labels = binary(rng)
    if digits is not None:
        first, second = first.round(digits), second.round(digits)
    areas = [np.array([roc_auc_score(labels, row) for row in side]) for side in (first, second)]
    comparison = compare_auroc(first, second, labels)
    gains = areas[0] - areas[1]
    assert auroc(first, labels) == pytest.approx(areas[0], abs=1e-12)
    assert comparison.delta == pytest.approx(gains.mean(), abs=1e-12)
    assert comparison.run_part == pytest.approx(gains.var(ddof=1) / 4)


def test_macro_area_equals_scikit_learn() -> None:
    first, second, labels = several(np.random.default_rng(1))

    def areas(scores: np.ndarray) -> np.ndarray:
        odds = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
        return np.array([roc_auc_score(labels, row, multi_class="ovr") for row in odds])

    odds = [np.exp(side) / np.exp(side).sum(axis=2, keepdims=True) for side in (first, second)]
    comparison = compare_auroc(*odds, labels)
    assert auroc(odds[0], labels) == pytest.approx(areas(first), abs=1e-12)
    assert comparison.delta == pytest.approx((areas(first) - areas(second)).mean(), abs=1e-12)


def test_two_scores_for_two_classes_are_the_one_score() -> None:
    first, second, labels = binary(np.random.default_rng(2))
    one = compare_auroc(first, second, labels)
    both = [np.stack([-side, side], axis=2) for side in (first, second)]
    two = compare_auroc(*both, labels)
    for field in ("delta", "run_part", "test_part"):
        assert getattr(two, field) == pytest.approx(getattr(one, field))


def test_only_the_order_of_scores_counts() -> None:
    first, second, labels = binary(np.random.default_rng(3))
    assert compare_auroc(np.exp(first), 5 * second - 3, labels) == compare_auroc(
        first, second, labels
    )


def test_with_many_runs_the_test_part_is_delongs_variance() -> None:
    """Runs that repeat the items' scores up to rare changes leave nothing but the items."""
    rng = np.random.default_rng(4)
    first, second, labels = binary(rng, n=1, M=150)
    n = 400
    sides = [np.repeat(side, n, axis=0) for side in (first, second)]
    sides = [side + 1e-3 * rng.standard_normal(side.shape) for side in sides]
    comparison = compare_auroc(*sides, labels)
    assert comparison.test_part == pytest.approx(delong(first[0], second[0], labels), rel=0.01)
    assert comparison.run_part < 1e-3 * comparison.test_part


@pytest.mark.parametrize("classes", [2, 3])
def test_test_part_is_the_variance_over_test_sets(classes: int) -> None:
    rng = np.random.default_rng(5)
    estimates, parts = [], []
    labels = np.repeat(np.arange(classes), [25, 60, 35][:classes])
    M = len(labels)
    for _ in range(250):
        sides = [
            np.eye(classes)[labels]
            + rng.standard_normal((1, M, classes))
            + 0.05 * rng.standard_normal((3, M, classes))
            for _ in range(2)
        ]
        found = compare_auroc(*sides, labels)
        estimates.append(found.delta)
        parts.append(found.test_part)
    assert np.mean(parts) == pytest.approx(np.var(estimates), rel=0.25)


def test_swapping_the_arms_flips_only_the_sign() -> None:
    first, second, labels = several(np.random.default_rng(6))
    one, other = compare_auroc(first, second, labels), compare_auroc(second, first, labels)
    assert one.delta == pytest.approx(-other.delta)
    assert (one.run_part, one.test_part) == pytest.approx((other.run_part, other.test_part))


def test_order_of_items_and_runs_does_not_count() -> None:
    rng = np.random.default_rng(7)
    first, second, labels = several(rng)
    rows, columns = rng.permutation(3), rng.permutation(90)
    clusters = np.arange(90) // 3
    straight = compare_auroc(first, second, labels, clusters=clusters)
    shuffled = compare_auroc(
        first[rows][:, columns],
        second[rows][:, columns],
        labels[columns],
        clusters=clusters[columns],
    )
    for field in ("delta", "run_part", "test_part", "n_items"):
        assert getattr(shuffled, field) == pytest.approx(getattr(straight, field))


@pytest.mark.parametrize("labelled", ["within", "across"])
def test_copies_of_an_image_add_nothing_once_they_form_a_cluster(labelled: str) -> None:
    rng = np.random.default_rng(8)
    first, second, labels = binary(rng)
    copies = np.repeat(np.arange(120), 4)
    clusters = copies if labelled == "within" else copies // 3  # a cluster of both classes
    sides = [side[:, copies] for side in (first, second)]
    aware = compare_auroc(*sides, labels[copies], clusters=clusters)
    blind = compare_auroc(*sides, labels[copies])
    reference = compare_auroc(
        first, second, labels, clusters=None if labelled == "within" else np.arange(120) // 3
    )
    assert aware.delta == pytest.approx(reference.delta)
    assert aware.test_part == pytest.approx(reference.test_part)
    assert aware.n_items == (120 if labelled == "within" else 40)
    assert blind.test_part < 0.6 * aware.test_part


def test_clusters_of_one_item_change_nothing() -> None:
    first, second, labels = several(np.random.default_rng(9))
    plain = compare_auroc(first, second, labels)
    clustered = compare_auroc(first, second, labels, clusters=np.arange(90)[::-1])
    for field in ("delta", "run_part", "test_part", "n_items"):
        assert getattr(clustered, field) == pytest.approx(getattr(plain, field))


def test_the_edges_have_the_reasons_of_every_comparison() -> None:
    first, second, labels = binary(np.random.default_rng(10))
    assert compare_auroc(first[:1], second[:1], labels).reason == "single_replicate"
    same = compare_auroc(first, first.round(12), labels)
    assert (same.reason, same.delta) == ("identical_predictions", 0.0)
    copies = [np.repeat(side[:1], 3, axis=0) for side in (first, second)]
    assert compare_auroc(*copies, labels).reason == "degenerate"
    lonely = np.arange(120) == 5
    assert compare_auroc(first, second, lonely.astype(int)).reason == "single_item"
    assert compare_auroc(first, second, labels, rho=1.0).reason == "scope_not_estimable"
    wide = compare_auroc(first, second, labels, rho=0.5)
    assert wide.widened_run_part == pytest.approx(wide.run_part * (1 + 4))


def test_a_certain_arm_and_its_mirror() -> None:
    labels = np.array([0, 0, 1, 1])
    perfect = np.array([[1.0, 2, 3, 4], [2, 1, 4, 3]])
    assert auroc(perfect, labels) == pytest.approx([1.0, 1.0])
    assert auroc(-perfect, labels) == pytest.approx([0.0, 0.0])
    assert auroc(np.ones((1, 4)), labels) == pytest.approx([0.5])
    # By hand: positives 2 and 0 against negatives 1 and 0 win 2 + .5 of 4.
    assert auroc([[1.0, 0, 2, 0]], labels) == pytest.approx([2.5 / 4])


@pytest.mark.parametrize(
    ("transfer", "scratch", "labels", "message"),
    [
        (np.ones((2, 4)), np.ones((3, 4)), [0, 1, 0, 1], "Keep the replicates"),
        (np.ones(4), np.ones(4), [0, 1, 0, 1], r"\(4,\), neither"),
        (np.ones((2, 4)), np.ones((2, 4)), [0, 1, 0], "one integer class"),
        (np.ones((2, 4)), np.ones((2, 4)), [0.0, 1, 0, 1], "one integer class"),
        (np.ones((2, 4)), np.ones((2, 4)), [1, 1, 1, 1], r"classes \[1\].*every class from 0 to 1"),
        (np.ones((2, 4)), np.ones((2, 4)), [0, 1, 2, 1], r"classes \[0, 1, 2\] for scores of 2"),
        (np.ones((2, 4, 3)), np.ones((2, 4, 3)), [0, 1, 0, 1], "for scores of 3.*leave out"),
        (np.ones((2, 4)), [[1, 2, np.nan, 4]] * 2, [0, 1, 0, 1], r"scratch\[0, 2\] is nan"),
        ([[1, 2], [1]], [[1, 2], [1]], [0, 1], "no block of numbers"),
    ],
)
def test_wrong_inputs_are_named(
    transfer: np.ndarray, scratch: np.ndarray, labels: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        compare_auroc(transfer, scratch, labels)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "M"), [(3, 150), (5, 150), (5, 600), (10, 150)])
def test_the_null_error_rate(n: int, M: int) -> None:
    rng = np.random.default_rng([n, M])
    decided = 0
    for _ in range(1200):
        first, second, labels = binary(rng, n, M)
        word = adjust([compare_auroc(first, second, labels)], margin=1e-6)[0].verdict
        decided += word in ("positive", "negative")
    assert 0.005 <= decided / 1200 <= 0.07


@pytest.mark.slow
def test_the_null_error_rate_of_clustered_items_and_of_classes() -> None:
    rng = np.random.default_rng(11)
    aware = blind = macro = 0
    for _ in range(600):
        clusters = np.repeat(np.arange(60), 4)
        shared = [rng.standard_normal(60)[clusters] for _ in range(2)]
        labels = (clusters % 3 == 0).astype(int)
        sides = [
            labels + own + 0.3 * rng.standard_normal(240) + 0.3 * rng.standard_normal((5, 240))
            for own in shared
        ]
        for count, comparison in (
            (0, compare_auroc(*sides, labels, clusters=clusters)),
            (1, compare_auroc(*sides, labels)),
        ):
            decided = adjust([comparison], margin=1e-6)[0].p_sign < 0.05
            aware, blind = aware + decided * (count == 0), blind + decided * (count == 1)
        classes = rng.permutation(np.repeat(np.arange(3), [30, 60, 110]))
        items = [np.eye(3)[classes] + 0.8 * rng.standard_normal((200, 3)) for _ in range(2)]
        arms = [mean + 0.4 * rng.standard_normal((5, 200, 3)) for mean in items]
        macro += adjust([compare_auroc(*arms, classes)])[0].p_sign < 0.05
    assert aware / 600 <= 0.075
    assert blind / 600 > 0.2
    assert macro / 600 <= 0.07
