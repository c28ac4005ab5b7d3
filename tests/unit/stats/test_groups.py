import numpy as np
import pytest
from scipy import stats

from transferlab.stats.groups import accuracy_by_group, gains_by_group, gap_change, partitions
from transferlab.stats.per_class import gains_by_class

CORRECT = np.array([[1, 1, 1, 0, 0, 1, 0, 0], [1, 1, 1, 1, 1, 0, 0, 0]], dtype=bool)
GROUPS = np.array(["a", "a", "a", "a", "b", "b", "c", "c"])


def arms(gap: float, n: int = 6, M: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scratch serves two groups alike; transfer serves the first worse by about ``gap``."""
    rng = np.random.default_rng(0)
    groups = np.arange(M) % 2
    ability = rng.random(M)
    noise = 0.1 * rng.normal(size=(2, n, M))
    transfer = ability + noise[0] < 0.7 - gap * (groups == 0)
    return transfer, ability + noise[1] < 0.7, groups


def test_accuracies_worst_and_gap_by_hand() -> None:
    found = accuracy_by_group(CORRECT, GROUPS, least=2)
    assert found.groups == ("a", "b", "c")
    assert found.counts == (4, 2, 2)
    assert found.accuracies == pytest.approx((7 / 8, 1 / 2, 0.0))
    assert (found.worst, found.worst_accuracy) == ("c", 0.0)
    assert found.gap == pytest.approx(7 / 8)


def test_small_groups_are_shown_and_not_counted() -> None:
    found = accuracy_by_group(CORRECT, GROUPS, least=3)
    assert found.counted == (True, False, False)
    assert found.accuracies[2] == 0.0
    assert (found.worst, found.worst_accuracy) == ("a", pytest.approx(7 / 8))
    assert np.isnan(found.gap)
    none = accuracy_by_group(CORRECT, GROUPS)
    assert (none.worst, none.counted) == ("", (False,) * 3)
    assert np.isnan(none.worst_accuracy)


def test_columns_alone_and_crossed() -> None:
    columns = {"sex": ["f", "m", "f", "m"], "site": [1, 1, 2, 2], "age": ["o", "o", "o", "y"]}
    found = partitions(columns)
    assert list(found) == [
        *("sex", "site", "age"),
        *("sex x site", "sex x age", "site x age"),
        "sex x site x age",
    ]
    assert found["site"].tolist() == ["1", "1", "2", "2"]
    assert found["sex x site x age"].tolist() == [
        "f x 1 x o",
        "m x 1 x o",
        "f x 2 x o",
        "m x 2 x y",
    ]
    assert list(partitions(columns, depth=1)) == ["sex", "site", "age"]


def test_a_crossing_finds_what_both_columns_hide() -> None:
    first, second = np.tile([0, 0, 1, 1], 50), np.tile([0, 1, 0, 1], 50)
    correct = (first == second)[None].repeat(2, axis=0)
    parted = partitions({"first": first, "second": second})
    gaps = {name: accuracy_by_group(correct, labels).gap for name, labels in parted.items()}
    assert gaps == pytest.approx({"first": 0.0, "second": 0.0, "first x second": 1.0})


def test_gap_change_is_the_paired_t_test_of_the_gaps() -> None:
    transfer, scratch, groups = arms(0.2)
    gaps = [
        np.abs(side[:, groups == 0].mean(axis=1) - side[:, groups == 1].mean(axis=1))
        for side in (transfer, scratch)
    ]
    reference = stats.ttest_1samp(gaps[0] - gaps[1], 0.0)
    found = gap_change(transfer, scratch, groups)
    assert found.per_replicate == pytest.approx(gaps[0] - gaps[1])
    assert found.delta == pytest.approx((gaps[0] - gaps[1]).mean())
    assert found.p == pytest.approx(reference.pvalue)
    assert found.ci95 == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert found.ci95[0] > 0.1
    mirrored = gap_change(scratch, transfer, groups)
    assert mirrored.ci95 == pytest.approx((-found.ci95[1], -found.ci95[0]))


def test_gap_change_without_an_interval_says_why() -> None:
    transfer, scratch, groups = arms(0.2)
    single = gap_change(transfer[:1], scratch[:1], groups)
    assert single.reason == "single_replicate"
    assert single.delta == pytest.approx(single.per_replicate[0])
    copies = [np.repeat(side[:1], 4, axis=0) for side in (transfer, scratch)]
    copied = gap_change(*copies, groups)
    assert copied.reason == "degenerate"
    assert np.isnan(copied.p)
    lonely = gap_change(transfer, scratch, groups, least=301)
    assert lonely.reason == "too_few_groups"
    assert np.isnan(lonely.delta)


def test_gains_of_groups_are_those_of_classes() -> None:
    transfer, scratch, groups = arms(0.2)
    found = gains_by_group(transfer, scratch, groups, rho=0.1, q=0.2)
    assert found == gains_by_class(transfer, scratch, groups, rho=0.1, q=0.2)
    assert found.harmed == ("0",)


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(8,\).*correct\[None, :\]"):
        accuracy_by_group(CORRECT[0], GROUPS)
    with pytest.raises(ValueError, match="not finite"):
        accuracy_by_group(np.where(CORRECT, 1.0, np.nan), GROUPS)
    with pytest.raises(ValueError, match="groups has shape"):
        accuracy_by_group(CORRECT, GROUPS[1:])
    with pytest.raises(ValueError, match="2 replicates and scratch 1"):
        gap_change(CORRECT, CORRECT[:1], GROUPS)
    with pytest.raises(ValueError, match="column 'age' has shape"):
        partitions({"sex": ["f", "m"], "age": ["old"]})
    with pytest.raises(ValueError, match="column 'sex' has items without an id"):
        partitions({"sex": np.array(["f", None], dtype=object)})
    for wrong in ({}, {"sex": ["f"]}):
        with pytest.raises(ValueError, match="at least one column"):
            partitions(wrong, depth=0)
