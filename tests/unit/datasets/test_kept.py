"""Kept images are the made ones, and are made once."""

import pytest
import torch
from torch import Tensor

from transferlab.datasets.kept import KeptImages

IMAGES = torch.arange(6 * 3 * 2 * 4, dtype=torch.float32).view(6, 3, 2, 4)


@pytest.mark.parametrize("form", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_image_is_made_once_and_comes_as_it_was(
    form: torch.memory_format, dtype: torch.dtype
) -> None:
    asked: list[int] = []

    def make(positions: Tensor) -> Tensor:
        asked.extend(positions.tolist())
        return IMAGES[positions].to(dtype).contiguous(memory_format=form)

    kept = KeptImages(len(IMAGES))
    for wanted in ([1, 4], [4, 0, 1], [5, 5], [1, 1, 0], [3, 2]):
        found = kept.images(torch.tensor(wanted), make)
        assert torch.equal(found, IMAGES[wanted].to(dtype))
        assert found.dtype == dtype
        assert found.is_contiguous(memory_format=form)
    assert [asked.count(item) for item in range(6)] == [1, 1, 1, 1, 1, 2], "twice within one batch"


def test_a_batch_may_be_written_to() -> None:
    kept = KeptImages(len(IMAGES))
    positions = torch.tensor([2, 3])
    kept.images(positions, lambda chosen: IMAGES[chosen]).zero_()
    assert torch.equal(kept.images(positions, lambda chosen: IMAGES[chosen]), IMAGES[positions])


def test_training_may_use_what_an_evaluation_made() -> None:
    kept = KeptImages(len(IMAGES))
    with torch.inference_mode():
        kept.images(torch.tensor([0]), lambda chosen: IMAGES[chosen] * 1)
    weight = torch.ones(1, requires_grad=True)
    found = kept.images(torch.tensor([0, 1]), lambda chosen: IMAGES[chosen] * 1)
    (found * weight).sum().backward()
    assert weight.grad is not None
    assert float(weight.grad) == float(IMAGES[:2].sum())
