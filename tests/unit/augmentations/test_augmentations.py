import pytest
import torch
from torch import Tensor

from transferlab.augmentations.affine import RandomAffine
from transferlab.augmentations.flip import RandomHorizontalFlip
from transferlab.errors import UserError
from transferlab.randomness import sample_uniforms


def pictures(count: int = 6) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_an_affine_of_nothing_changes_nothing() -> None:
    images = pictures()
    torch.testing.assert_close(
        RandomAffine()(images, torch.rand(6, 4)), images, atol=1e-5, rtol=1e-5
    )


def test_a_flip_of_probability_zero_changes_nothing_and_of_one_mirrors() -> None:
    images = pictures()
    assert torch.equal(RandomHorizontalFlip(0.0)(images, torch.zeros(6, 1)), images)
    assert torch.equal(RandomHorizontalFlip(1.0)(images, torch.rand(6, 1)), images.flip(-1))


def test_a_flip_mirrors_exactly_the_samples_below_the_probability() -> None:
    images = pictures(3)
    flipped = RandomHorizontalFlip(0.5)(images, torch.tensor([[0.49], [0.5], [0.0]]))
    assert torch.equal(flipped[0], images[0].flip(-1))
    assert torch.equal(flipped[1], images[1])
    assert torch.equal(flipped[2], images[2].flip(-1))


def test_a_quarter_turn_is_exact() -> None:
    images = pictures()
    turned = RandomAffine(degrees=90.0)(images, torch.tensor([[1.0, 0, 0.5, 0.5]]).expand(6, 4))
    back = torch.rot90(images, 1, (2, 3)), torch.rot90(images, -1, (2, 3))
    assert any(torch.allclose(turned, expected, atol=1e-4) for expected in back)


def test_a_shift_of_whole_pixels_moves_them() -> None:
    images = pictures()
    shift = RandomAffine(shift=0.125)  # two of sixteen pixels
    moved = shift(images, torch.tensor([[0.5, 0.5, 1.0, 0.5]]).expand(6, 4))
    torch.testing.assert_close(moved[..., :-2], images[..., 2:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(  # the edge is repeated, no black enters
        moved[..., -2:], images[..., -1:].expand(-1, -1, -1, 2), atol=1e-5, rtol=1e-5
    )


def test_a_scale_above_one_enlarges() -> None:
    images = torch.zeros(1, 1, 16, 16)
    images[..., 6:10, 6:10] = 1.0
    large = RandomAffine(scale=[2.0, 2.0])(images, torch.full((1, 4), 0.5))
    assert large.sum() == pytest.approx(4 * 16, rel=0.05)


def test_every_sample_is_transformed_by_its_own_numbers() -> None:
    same = pictures(1).expand(6, -1, -1, -1)
    affine = RandomAffine(10.0, (0.9, 1.1), 0.1)
    out = affine(same, sample_uniforms(0, 3, torch.arange(6), affine.draws))
    for first in range(6):
        for second in range(first):
            assert not torch.allclose(out[first], out[second], atol=1e-3)


def test_a_sample_is_transformed_alike_in_every_batch() -> None:
    images, affine = pictures(), RandomAffine(10.0, (0.9, 1.1), 0.1)
    items = torch.tensor([4, 8, 15, 16, 23, 42])
    whole = affine(images, sample_uniforms(1, 7, items, affine.draws))
    part = torch.tensor([5, 2])
    alone = affine(images[part], sample_uniforms(1, 7, items[part], affine.draws))
    assert torch.equal(alone, whole[part])


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomAffine(degrees=-1.0), lambda: RandomAffine(shift=-0.1),
        lambda: RandomAffine(scale=[1.2, 0.8]), lambda: RandomAffine(scale=[0.0, 1.0]),
        lambda: RandomAffine(scale=[1.0]), lambda: RandomHorizontalFlip(1.5),
        lambda: RandomHorizontalFlip(-0.1),
    ],
)  # fmt: skip
def test_senseless_amounts_are_refused(make) -> None:
    with pytest.raises(UserError, match="expected"):
        make()
