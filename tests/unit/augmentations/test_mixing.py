"""Laws of mixing: what is kept, what is blended, and what decides it."""

import math

import pytest
import torch
from torch import Tensor

from transferlab.augmentations.mixing import Mixing
from transferlab.errors import UserError

KINDS = {
    "mixup": Mixing(mixup=0.2),
    "cutmix": Mixing(cutmix=1.0),
    "either": Mixing(mixup=0.2, cutmix=1.0),
}
ALL = pytest.mark.parametrize("mixing", KINDS.values(), ids=KINDS)


def batch(count: int = 6) -> tuple[Tensor, Tensor]:
    images = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return images, torch.eye(count)  # a class of its own for each: targets show who is in it


@ALL
def test_targets_keep_mass_one_and_name_the_image_and_its_neighbour(mixing: Mixing) -> None:
    images, targets = batch()
    for seed in range(20):
        _, mixed = mixing(images, targets, seed)
        torch.testing.assert_close(mixed.sum(1), torch.ones(6))
        assert (mixed >= 0).all()
        weights = mixed.diagonal()
        torch.testing.assert_close(
            mixed, weights[0] * targets + (1 - weights[0]) * targets.roll(1, 0)
        )


def test_mixup_is_the_same_blend_of_images_and_of_targets() -> None:
    images, targets = batch()
    out, mixed = Mixing(mixup=1.0)(images, targets, 3)
    weight = mixed[0, 0]
    assert 0.01 < weight < 0.99
    torch.testing.assert_close(out, weight * images + (1 - weight) * images.roll(1, 0))


def test_cutmix_pastes_one_rectangle_and_counts_its_pixels() -> None:
    images, targets = batch()
    for seed in range(20):
        out, mixed = Mixing(cutmix=1.0)(images, targets, seed)
        pasted = (out != images).any(1)
        assert torch.equal(out, torch.where(pasted[:, None], images.roll(1, 0), images))
        assert (pasted == pasted[0]).all()  # the same place in all images
        rows, columns = pasted[0].any(1), pasted[0].any(0)
        assert torch.equal(pasted[0], rows[:, None] & columns[None, :])
        torch.testing.assert_close(mixed[0, 0], 1 - pasted[0].float().mean())


class Whole(torch.distributions.Beta):
    """Keeps each image whole."""

    def sample(self, sample_shape=()) -> Tensor:
        return torch.ones(1)


@pytest.mark.parametrize("mixing", [Mixing(mixup=0.2), Mixing(cutmix=1.0)], ids=["mixup", "cutmix"])
def test_a_weight_of_one_changes_nothing(mixing: Mixing) -> None:
    mixing._kinds[0]._dist = Whole(torch.ones(1), torch.ones(1))
    images, targets = batch()
    out, mixed = mixing(images, targets, 0)
    assert torch.equal(out, images)
    assert torch.equal(mixed, targets)


@ALL
def test_a_batch_is_a_function_of_its_seed_and_leaves_the_generators_alone(mixing: Mixing) -> None:
    images, targets = batch()
    original = images.clone()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = mixing(images, targets, 5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    again, other = mixing(images, targets, 5), mixing(images, targets, 6)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    assert torch.equal(images, original)


def test_weights_follow_the_beta_distribution() -> None:
    images, targets = batch(2)
    weights = [float(Mixing(mixup=0.4)(images, targets, seed)[1][0, 0]) for seed in range(2000)]
    variance = 1 / (4 * (2 * 0.4 + 1))  # of Beta(a, a)
    drawn = torch.tensor(weights)
    assert drawn.mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(variance / 2000))
    assert drawn.var().item() == pytest.approx(variance, rel=0.1)


def test_a_probability_is_the_share_of_the_batches_and_either_is_drawn_evenly() -> None:
    images, targets = batch(2)
    whole = sum(
        torch.equal(Mixing(mixup=1.0, probability=0.3)(images, targets, seed)[0], images)
        for seed in range(500)
    )
    assert whole == pytest.approx(350, abs=4 * math.sqrt(500 * 0.3 * 0.7))
    either = Mixing(mixup=1.0, cutmix=1.0)
    blended = sum(
        bool((either(images, targets, seed)[0] != images).all(1).sum() == 2 * 256)
        for seed in range(500)
    )  # mixup moves every pixel, CutMix seldom
    assert blended == pytest.approx(250, abs=4 * math.sqrt(500 / 4) + 5)


def test_mixing_twice_keeps_the_mass() -> None:
    images, targets = batch()
    once = Mixing(mixup=1.0)(images, targets, 1)
    twice = Mixing(cutmix=1.0)(*once, 2)
    torch.testing.assert_close(twice[1].sum(1), torch.ones(6))


def test_a_batch_of_one_has_no_partner() -> None:
    with pytest.raises(UserError, match="batch of one"):
        Mixing(mixup=0.2)(*batch(1), 0)


@pytest.mark.parametrize(
    "arguments",
    [
        {}, {"mixup": 0.0}, {"cutmix": -1.0}, {"mixup": 0.2, "cutmix": 0.0},
        {"mixup": 0.2, "probability": 0.0}, {"mixup": 0.2, "probability": 1.1},
    ],
)  # fmt: skip
def test_senseless_settings_are_refused(arguments) -> None:
    with pytest.raises(UserError, match="expected"):
        Mixing(**arguments)
