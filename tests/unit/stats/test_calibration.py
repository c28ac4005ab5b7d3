import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torchmetrics.functional.classification import multiclass_calibration_error
from torchmetrics.functional.classification.calibration_error import _ce_compute

from transferlab.stats.calibration import (
    COLDEST,
    HOTTEST,
    expected_calibration_error,
    fit_temperature,
    scaled,
)
from transferlab.stats.metrics import log_loss


def overconfident(
    temperature: float, M: int = 4000, C: int = 6, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are right once divided by a temperature, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    true = 1.5 * rng.standard_normal((M, C))
    labels = (true + rng.gumbel(size=(M, C))).argmax(axis=1)
    return temperature * true, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("bins", [15, 7])
def test_ece_equals_torchmetrics(temperature: float, bins: int) -> None:
    logits, labels = overconfident(temperature, M=700)
    odds = softmax(logits, axis=1)
    public = multiclass_calibration_error(
        torch.from_numpy(odds), torch.from_numpy(labels), num_classes=6, n_bins=bins, norm="l1"
    )
    # What the public function calls after rounding confidences to 32 bits.
    right = torch.from_numpy(1.0 * (odds.argmax(axis=1) == labels))
    exact = _ce_compute(torch.from_numpy(odds.max(axis=1)), right, bins, norm="l1")
    found = expected_calibration_error(log_softmax(logits, axis=1), labels, bins=bins)
    assert found == pytest.approx(float(public), abs=1e-6)
    assert found == pytest.approx(float(exact), abs=1e-9)


def test_ece_by_hand() -> None:
    # Confidence .9 and right half the time, confidence .6 and always right.
    log_probs = np.log([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2)
    labels = [0, 0, 1, 1, 1, 1]
    assert expected_calibration_error(log_probs, labels) == pytest.approx((4 * 0.4 + 2 * 0.4) / 6)
    # In one bin the two errors, one each way, make up for each other in part.
    assert expected_calibration_error(log_probs, labels, bins=1) == pytest.approx(
        abs(4 / 6 - (4 * 0.9 + 2 * 0.6) / 6)
    )


def test_certainty_lies_in_the_last_bin() -> None:
    with np.errstate(divide="ignore"):
        certain = np.log([[1.0, 0.0], [0.97, 0.03]])
    assert expected_calibration_error(certain, [0, 1]) == pytest.approx(abs(1 - 1.97) / 2)
    assert expected_calibration_error(certain[:1], [0]) == 0.0
    assert expected_calibration_error(certain[:1], [1]) == 1.0


def test_right_probabilities_have_the_error_of_chance_alone() -> None:
    logits, labels = overconfident(1.0, M=2000)
    assert 0.005 < expected_calibration_error(log_softmax(logits, axis=1), labels) < 0.05


def test_temperature_is_recovered() -> None:
    logits, labels = overconfident(2.5)
    found = fit_temperature(logits, labels)
    assert found.value == pytest.approx(2.5, rel=0.05)
    assert found.ece_before > 0.15
    assert found.ece_after < 0.03
    assert not found.at_edge
    assert found.nll_before == pytest.approx(log_loss(log_softmax(logits, axis=1), labels))
    fresh, truth = overconfident(2.5, seed=1)
    before = log_loss(log_softmax(fresh, axis=1), truth)
    assert log_loss(log_softmax(scaled(fresh, found.value), axis=1), truth) < before


def test_temperature_undoes_a_scaling_exactly() -> None:
    logits, labels = overconfident(1.0, M=300)
    one, three = fit_temperature(logits, labels), fit_temperature(3 * logits, labels)
    assert three.value == pytest.approx(3 * one.value, rel=1e-4)
    assert three.nll_after == pytest.approx(one.nll_after, rel=1e-9)


def test_temperature_is_the_least_of_a_fine_grid() -> None:
    logits, labels = overconfident(0.6, M=120, seed=5)
    found = fit_temperature(logits, labels)
    grid = [log_loss(log_softmax(logits / T, axis=1), labels) for T in np.geomspace(0.05, 20, 2000)]
    assert found.nll_after <= min(grid) + 1e-12


@pytest.mark.parametrize("seed", range(30))
def test_likelihood_never_falls_and_no_answer_changes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    M, C = int(rng.integers(1, 40)), int(rng.integers(2, 6))
    logits = 10 ** rng.uniform(-3, 3) * rng.standard_normal((M, C))
    labels = rng.integers(0, C, M)
    found = fit_temperature(logits, labels)
    assert found.nll_after <= found.nll_before
    assert COLDEST <= found.value <= HOTTEST
    answers = scaled(logits, found.value).argmax(axis=1)
    assert (answers == logits.argmax(axis=1)).all()


def test_an_answer_by_a_hair_keeps_its_place() -> None:
    near = np.array([[1.9, np.nextafter(1.9, 2.0), 0.3]])
    for temperature in (0.07, 1.8, 100.0):
        assert scaled(near, temperature).argmax() == 1
    assert (near / 1.8).argmax() == 0, "plain division makes a tie of them"


def test_items_that_are_all_right_or_all_wrong_end_at_an_edge() -> None:
    logits = np.array([[3.0, 0.0], [0.0, 2.0]])
    sure, lost = fit_temperature(logits, [0, 1]), fit_temperature(logits, [1, 0])
    assert sure.at_edge
    assert lost.at_edge
    assert sure.value == pytest.approx(COLDEST, rel=1e-3)
    assert lost.value == pytest.approx(HOTTEST, rel=1e-3)
    flat = fit_temperature(np.zeros((4, 3)), [0, 1, 2, 0])  # no temperature matters
    assert flat.value == 1.0
    assert flat.nll_before == flat.nll_after == pytest.approx(np.log(3))


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(ValueError, match=r"log_softmax\(logits\)"):
        expected_calibration_error([[0.2, 0.3]], [0])
    with pytest.raises(ValueError, match="bins=0"):
        expected_calibration_error(np.log([[0.5, 0.5]]), [0], bins=0)
    with pytest.raises(ValueError, match="not finite"):
        fit_temperature([[np.inf, 0.0]], [0])
    with pytest.raises(ValueError, match="0 to the number of classes"):
        fit_temperature([[1.0, 0.0]], [2])
    with pytest.raises(ValueError, match=r"\(2,\)"):
        fit_temperature([1.0, 0.0], [0])
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="temperature="):
            scaled([[1.0, 0.0]], wrong)
