import math

import pytest
import torch
import torch.nn.functional as F

from transferlab.errors import UserError
from transferlab.losses import CrossEntropy, Focal

LOGITS = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(20) % 4
UNEVEN = torch.tensor([0] * 8 + [1] * 4 + [2] * 2 + [3])


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]])
    assert CrossEntropy()(logits, torch.tensor([0])).item() == pytest.approx(math.log(4))
    assert CrossEntropy()(logits, torch.tensor([1])).item() == pytest.approx(math.log(4 / 3))


def test_smoothing_mixes_in_the_uniform_distribution() -> None:
    uniform = -F.log_softmax(LOGITS, dim=1).mean()
    expected = 0.9 * F.cross_entropy(LOGITS, LABELS) + 0.1 * uniform
    torch.testing.assert_close(CrossEntropy(label_smoothing=0.1)(LOGITS, LABELS), expected)


def test_focal_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]])  # p = 1/4 and 3/4
    assert Focal(2.0)(logits, torch.tensor([1])).item() == pytest.approx(math.log(4 / 3) / 16)
    assert Focal(1.0)(logits, torch.tensor([0])).item() == pytest.approx(0.75 * math.log(4))


@pytest.mark.parametrize("weights", [None, "balanced", [1.0, 2.0, 3.0, 4.0]])
def test_focal_without_focus_is_cross_entropy(weights) -> None:
    focal, plain = Focal(0.0, weights), CrossEntropy(class_weights=weights)
    for loss in (focal, plain):
        loss.prepare(UNEVEN, 4)
    torch.testing.assert_close(focal(LOGITS, LABELS), plain(LOGITS, LABELS))


def test_balanced_weights_are_inverse_frequencies_of_mean_one() -> None:
    loss = CrossEntropy(class_weights="balanced")
    loss.prepare(UNEVEN, 4)
    assert loss.weight is not None
    expected = torch.tensor([1 / 8, 1 / 4, 1 / 2, 1.0])
    torch.testing.assert_close(loss.weight, expected / expected.mean())
    torch.testing.assert_close(
        loss(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS, weight=expected)
    )


def test_weights_move_with_the_module_and_stay_out_of_checkpoints() -> None:
    loss = CrossEntropy(class_weights="balanced")
    loss.prepare(UNEVEN, 4)
    assert loss.double().weight.dtype == torch.float64
    assert not loss.state_dict()


def test_a_confident_right_answer_has_a_finite_gradient() -> None:
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    Focal(0.5)(logits, torch.tensor([0])).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, 2.0, 3.0, 0.0], [1.0, 2.0, 3.0, -1.0]])
def test_weights_that_do_not_fit_the_classes_are_refused(weights) -> None:
    with pytest.raises(UserError, match="class_weights"):
        CrossEntropy(class_weights=weights).prepare(LABELS, 4)


def test_senseless_settings_are_refused() -> None:
    with pytest.raises(UserError, match="label_smoothing"):
        CrossEntropy(label_smoothing=1.0)
    with pytest.raises(UserError, match="gamma"):
        Focal(gamma=-1.0)


MAKERS = {
    "cross_entropy": lambda weights=None: CrossEntropy(0.0, weights),
    "smoothed": lambda weights=None: CrossEntropy(0.1, weights),
    "focal": lambda weights=None: Focal(2.0, weights),
}
WEIGHTS = [None, "balanced", [1.0, 2.0, 3.0, 4.0]]
EVERY_LOSS = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
EVERY_WEIGHT = pytest.mark.parametrize("weights", WEIGHTS, ids=str)


@EVERY_LOSS
@EVERY_WEIGHT
def test_one_hot_probabilities_are_labels(make, weights) -> None:
    loss = make(weights)
    loss.prepare(UNEVEN, 4)
    torch.testing.assert_close(loss(LOGITS, F.one_hot(LABELS, 4).float()), loss(LOGITS, LABELS))


@EVERY_LOSS
def test_the_loss_of_a_blend_is_the_blend_of_the_losses(make) -> None:
    loss, other = make(), LABELS.roll(1)
    targets = 0.7 * F.one_hot(LABELS, 4) + 0.3 * F.one_hot(other, 4)
    expected = 0.7 * loss(LOGITS, LABELS) + 0.3 * loss(LOGITS, other)
    torch.testing.assert_close(loss(LOGITS, targets), expected)


def test_weights_and_smoothing_of_a_blend_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])  # p = 1/4 and 3/4, 1/2 and 1/2
    targets = torch.tensor([[0.4, 0.6], [1.0, 0.0]])
    loss = CrossEntropy(label_smoothing=0.2, class_weights=[1.0, 3.0])
    loss.prepare(LABELS, 2)
    smooth = [[0.8 * 0.4 + 0.1, 0.8 * 0.6 + 0.1], [0.9, 0.1]]
    first = smooth[0][0] * math.log(4) + 3 * smooth[0][1] * math.log(4 / 3)
    second = (smooth[1][0] + 3 * smooth[1][1]) * math.log(2)
    carried = (0.4 + 3 * 0.6) + 1.0
    assert loss(logits, targets).item() == pytest.approx((first + second) / carried)


@EVERY_WEIGHT
def test_smoothing_of_labels_is_torchs(weights) -> None:
    loss = CrossEntropy(0.1, weights)
    loss.prepare(UNEVEN, 4)
    expected = F.cross_entropy(LOGITS, LABELS, weight=loss.weight, label_smoothing=0.1)
    torch.testing.assert_close(loss(LOGITS, LABELS), expected)


@EVERY_LOSS
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64], ids=str)
def test_probabilities_are_not_rounded_to_the_logits_type(make, kind) -> None:
    loss = make([1.0, 2.0, 3.0, 4.0])
    loss.prepare(UNEVEN, 4)
    targets = F.one_hot(LABELS, 4).float()
    found = loss.to(kind)(LOGITS.to(kind), targets)
    assert found.dtype == torch.promote_types(kind, torch.float32)
    torch.testing.assert_close(
        found.double(), loss.double()(LOGITS.double(), LABELS), rtol=0.02, atol=0
    )
