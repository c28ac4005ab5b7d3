import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from transferlab.stats.crossed import compare
from transferlab.stats.decision import p_values
from transferlab.stats.per_class import gains_by_class
from transferlab.stats.verdict import interval, transfer_verdict


def arms(
    shifts: dict[str, float], n: int = 6, per_class: int = 200, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correctness of two arms; transfer's accuracy on each class is shifted by about so much."""
    rng = np.random.default_rng(seed)
    classes = np.repeat(list(shifts), per_class)
    ability = rng.random(len(classes))
    gain = np.array([shifts[each] for each in classes])
    transfer = ability + 0.1 * rng.normal(size=(n, len(classes))) < 0.6 + gain
    return transfer, ability + 0.1 * rng.normal(size=(n, len(classes))) < 0.6, classes


MIXED = {"cat": 0.2, "dog": -0.2, "eel": 0.0, "fox": 0.25, "gnu": 0.22}


def test_a_class_is_compared_on_its_own_items() -> None:
    transfer, scratch, classes = arms(MIXED)
    found = gains_by_class(transfer, scratch, classes)
    assert [gain.label for gain in found.classes] == sorted(MIXED)
    for gain in found.classes:
        own = classes == gain.label
        alone = compare(transfer[:, own], scratch[:, own])
        assert gain.delta == pytest.approx(alone.delta)
        assert gain.ci95 == pytest.approx(interval(alone, 0.05))
        assert gain.p_sign == pytest.approx(p_values(alone, 0.01).sign)
        assert (gain.gained - gain.lost) / (6 * 200) == pytest.approx(gain.delta)


def test_a_class_is_harmed_though_the_whole_gains() -> None:
    transfer, scratch, classes = arms(MIXED)
    assert transfer_verdict(transfer, scratch).verdict == "positive"
    found = gains_by_class(transfer, scratch, classes)
    assert found.harmed == found.surely_harmed == ("dog",)
    assert {"cat", "fox", "gnu"} <= set(found.helped)
    assert found.summary == "1 of 5 classes harmed"


def test_adjusted_p_values_equal_statsmodels() -> None:
    found = gains_by_class(*arms({str(k): 0.004 * k for k in range(8)}, seed=3))
    plain = [gain.p_sign for gain in found.classes]
    for field, method in (("p_fdr", "fdr_bh"), ("p_holm", "holm")):
        expected = multipletests(plain, method=method)[1]
        assert [getattr(gain, field) for gain in found.classes] == pytest.approx(expected)


def test_the_lists_follow_the_adjusted_p_values() -> None:
    found = gains_by_class(*arms({str(k): 0.01 * (k - 4) for k in range(9)}, seed=4), q=0.2)
    shown = {gain.label for gain in found.classes if gain.p_fdr <= 0.2}
    assert {*found.harmed, *found.helped} == shown
    assert {*found.surely_harmed, *found.surely_helped} <= shown


def test_a_class_of_few_items_has_counts_alone() -> None:
    transfer, scratch, classes = arms({"cat": -0.3, "dog": 0.3})
    kept = np.flatnonzero((classes == "dog") | (np.cumsum(classes == "cat") <= 29))
    found = gains_by_class(transfer[:, kept], scratch[:, kept], classes[kept])
    cat, dog = found.classes
    assert (cat.n_items, cat.reason) == (29, "few_items")
    assert cat.lost > cat.gained == 0
    assert np.isnan([cat.delta, *cat.ci95, cat.p_sign, cat.p_fdr, cat.p_holm]).all()
    assert found.harmed == ()
    assert found.n_tested == 1
    assert dog.p_sign == dog.p_fdr == dog.p_holm  # a family of one
    assert found.summary == "0 of 2 classes harmed (1 with too few items to tell)"


def test_thirty_images_of_few_patients_are_few_items() -> None:
    transfer, scratch, classes = arms({"cat": -0.3, "dog": 0.3}, per_class=90)
    found = gains_by_class(transfer, scratch, classes, clusters=np.arange(180) // 5)
    assert [gain.n_items for gain in found.classes] == [18, 18]
    assert found.n_tested == 0
    assert found.harmed == found.helped == ()


def test_classes_without_a_p_count_in_the_family() -> None:
    transfer, scratch, classes = arms({"cat": -0.2, "dog": 0.0, "eel": 0.0})
    same, copied = classes == "dog", classes == "eel"
    transfer[:, same] = scratch[:, same]
    transfer[:, copied], scratch[:, copied] = transfer[:1, copied], scratch[:1, copied]
    cat, dog, eel = gains_by_class(transfer, scratch, classes).classes
    assert (dog.reason, dog.p_sign, dog.p_holm) == ("identical_predictions", 1.0, 1.0)
    assert eel.reason == "degenerate"
    assert np.isnan([eel.p_sign, eel.p_fdr, eel.p_holm]).all()
    assert cat.p_holm == pytest.approx(min(1, 3 * cat.p_sign))
    assert cat.p_fdr == pytest.approx(min(1, 3 * cat.p_sign))


def test_a_wider_scope_widens_every_class() -> None:
    transfer, scratch, classes = arms(MIXED)
    here, new = (gains_by_class(transfer, scratch, classes, rho=rho) for rho in (0.0, 0.5))
    assert all(a.p_sign <= b.p_sign for a, b in zip(here.classes, new.classes, strict=True))
    none = gains_by_class(transfer, scratch, classes, rho=1.0)
    assert {gain.reason for gain in none.classes} == {"scope_not_estimable"}


def test_swapping_the_arms_swaps_the_lists() -> None:
    transfer, scratch, classes = arms(MIXED)
    one = gains_by_class(transfer, scratch, classes)
    other = gains_by_class(scratch, transfer, classes)
    assert (one.harmed, one.helped) == (other.helped, other.harmed)


def test_wrong_inputs_are_named() -> None:
    transfer, scratch, classes = arms({"cat": 0.1, "dog": 0.1}, per_class=40)
    with pytest.raises(ValueError, match="classes has shape"):
        gains_by_class(transfer, scratch, classes[1:])
    with pytest.raises(ValueError, match="Keep the replicates"):
        gains_by_class(transfer, scratch[1:], classes)
    with pytest.raises(ValueError, match="q=0"):
        gains_by_class(transfer, scratch, classes, q=0)
    with pytest.raises(ValueError, match=r"alpha=1\.0"):
        gains_by_class(transfer, scratch, classes, alpha=1.0)


@pytest.mark.slow
def test_the_lists_keep_their_error_rates_where_no_class_changes() -> None:
    explored = confirmed = 0
    for seed in range(400):
        found = gains_by_class(*arms({str(k): 0.0 for k in range(6)}, 5, 100, seed))
        explored += bool(found.harmed or found.helped)
        confirmed += bool(found.surely_harmed or found.surely_helped)
    assert explored / 400 <= 0.1 + 2 * (0.1 * 0.9 / 400) ** 0.5  # all null: rate q of any at all
    assert confirmed / 400 <= 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5
