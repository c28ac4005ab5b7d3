"""Transforms of a library, seeded by the sample."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from transferlab.augmentations.per_image import PerImage
from transferlab.errors import UserError
from transferlab.randomness import sample_uniforms

ITEMS = torch.tensor([4, 8, 15, 16, 23, 42])


def pictures(channels: int = 3, count: int = 6) -> Tensor:
    whole = torch.randint(
        0, 256, (count, channels, 16, 16), generator=torch.Generator().manual_seed(0)
    )
    return whole.float() / 255


def numbers(step: int = 0, items: Tensor = ITEMS) -> Tensor:
    return sample_uniforms(0, step, items, PerImage.draws)


def test_no_operation_changes_nothing() -> None:
    images = pictures()
    assert torch.equal(PerImage(v2.RandAugment(num_ops=0))(images, numbers()), images)


def test_a_transform_sees_each_whole_image_once() -> None:
    seen = []

    def look(image: Tensor) -> Tensor:
        seen.append(image)
        return 255 - image

    images = pictures()
    torch.testing.assert_close(PerImage(look)(images, numbers()), 1 - images)
    assert torch.equal(torch.stack(seen), images.mul(255).round().to(torch.uint8))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transform", [v2.RandAugment(), v2.TrivialAugmentWide(), v2.AugMix()])
def test_a_sample_is_transformed_alike_in_every_batch(transform, channels: int) -> None:
    images, augmentation = pictures(channels), PerImage(transform)
    whole = augmentation(images, numbers(7))
    part = torch.tensor([5, 2])
    assert torch.equal(augmentation(images[part], numbers(7, ITEMS[part])), whole[part])
    assert not torch.equal(augmentation(images, numbers(8)), whole)
    assert whole.min() >= 0
    assert whole.max() <= 1


def test_every_sample_has_a_seed_of_its_own_and_the_generator_is_left_alone() -> None:
    drawn = []

    def draw(image: Tensor) -> Tensor:
        drawn.append(float(torch.rand(())))
        return image

    state = torch.get_rng_state()
    PerImage(draw)(pictures(), numbers(1))
    PerImage(draw)(pictures(), numbers(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(set(drawn)) == 12


def test_the_generator_is_put_back_after_an_error() -> None:
    state = torch.get_rng_state()
    with pytest.raises(UserError, match="refuses"):
        PerImage(v2.RandAugment(num_ops=20, magnitude=99))(pictures(), numbers())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("transform", [v2.CenterCrop(8), v2.ToDtype(torch.float32)])
def test_a_transform_that_changes_shape_or_type_is_refused(transform) -> None:
    with pytest.raises(UserError, match="keeps both"):
        PerImage(transform)(pictures(), numbers())
