"""The same sums whichever way they are made: a laid out model computes what it computed before."""

import copy
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy

from transferlab.backbones import layout
from transferlab.backbones.layout import lay_out

HEAVY = [
    (512, 512, 3, 1, 1, 2), (256, 512, 3, 2, 1, 4), (256, 512, 3, 2, 1, 3), (256, 256, 3, 1, 1, 3),
    (512, 512, 3, 1, 1, 4), (256, 300, 2, 2, 0, 4), (256, 256, (1, 7), 1, (0, 3), 2),
    (256, 256, (3, 5), (2, 1), (0, 1), (5, 4)),
]  # fmt: skip
"""Channels in and out, kernel, stride, padding and size of the map."""


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The maps that were computed as products."""
    made: list[torch.Size] = []
    original = layout._product

    def noted(*given: object) -> Tensor:
        found = original(*given)  # type: ignore[arg-type]
        made.append(found.shape)
        return found

    monkeypatch.setattr(layout, "_product", noted)
    return made


def outcome(conv: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images = images.clone().requires_grad_()
    found = conv(images)
    (found * torch.linspace(-1, 1, found.numel()).to(found).view(found.shape)).sum().backward()
    return found.detach(), images.grad, conv.weight.grad, conv.bias.grad


@pytest.mark.parametrize(("width", "out", "kernel", "stride", "padding", "size"), HEAVY)
def test_a_product_is_the_convolution(
    width: int, out: int, kernel: int, stride: int, padding: int, size: int,
    products: list[torch.Size],
) -> None:  # fmt: skip
    torch.manual_seed(0)
    plain = nn.Conv2d(width, out, kernel, stride, padding, dtype=torch.float64)
    images = torch.randn(5, width, *((size, size) if isinstance(size, int) else size))
    images = images.double().contiguous(memory_format=torch.channels_last)
    own = lay_out(copy.deepcopy(plain))
    expected, found = outcome(plain, images), outcome(own, images)
    assert products == [found[0].shape]
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    assert own.weight.grad.stride() == own.weight.stride()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


LIGHT = {
    "a large map": ({"padding": 1}, 5),
    "few weights": ({"in_channels": 64, "out_channels": 64, "padding": 1}, 2),
    "one position a kernel": ({"kernel_size": 1}, 2),
    "groups": ({"padding": 1, "groups": 2}, 2),
    "holes": ({"padding": 2, "dilation": 2}, 2),
    "reflection": ({"padding": 1, "padding_mode": "reflect"}, 2),
    "named padding": ({"padding": "same"}, 2),
}


@pytest.mark.parametrize("name", LIGHT)
def test_other_layers_are_left_to_the_library(name: str, products: list[torch.Size]) -> None:
    given, size = LIGHT[name]
    settings: Any = {"in_channels": 1024, "out_channels": 512, "kernel_size": 3} | given
    conv = nn.Conv2d(**settings)
    images = torch.randn(2, conv.in_channels, size, size)
    own = lay_out(copy.deepcopy(conv))
    torch.testing.assert_close(own(images), conv(images), rtol=1e-4, atol=1e-4)
    assert not products


@pytest.mark.parametrize("stride", [1, 2])
def test_one_image_without_a_batch_is_computed_too(stride: int) -> None:
    conv = nn.Conv2d(512, 512, 3, stride, 1).to(torch.bfloat16)
    image = torch.randn(512, 1, 1, dtype=torch.bfloat16)
    expected = conv(image)
    assert torch.equal(lay_out(conv)(image), expected)


def test_a_map_too_small_for_its_kernel_is_refused_as_ever() -> None:
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        lay_out(nn.Conv2d(512, 512, 5))(torch.randn(1, 512, 2, 2))


@pytest.mark.parametrize("mixed", [False, True], ids=["fp32", "bf16"])
def test_a_resnet_trains_as_before(mixed: bool, products: list[torch.Size]) -> None:
    torch.manual_seed(0)
    plain = timm.create_model("resnet10t", num_classes=3)
    own = lay_out(copy.deepcopy(plain))
    assert [type(m) for m in own.modules()] == [type(m) for m in plain.modules()]
    assert own.state_dict().keys() == plain.state_dict().keys()
    plain = plain.to(memory_format=torch.channels_last)
    images, labels = torch.randn(8, 3, 64, 64), torch.arange(8) % 3
    losses = []
    for model in (plain, own):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = cross_entropy(model(images).float(), labels)
        loss.backward()
        losses.append(loss.detach())
    assert len(products) == 2, "the last stage has maps of 2 x 2 positions"
    close = {"rtol": 0.05, "atol": 0.05} if mixed else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(*losses, **close)
    for (name, one), other in zip(plain.named_parameters(), own.parameters(), strict=True):
        assert one.grad is not None, name
        scale = one.grad.abs().max() + 1e-6
        torch.testing.assert_close(one.grad / scale, other.grad / scale, **close)


STRIDED = [
    (16, 16, 3, 2, 1, (1, 1), 1), (32, 32, 7, 2, 3, (2, 1), 1), (8, 8, 3, 2, 1, (1, 1), 8),
    (16, 16, 1, 2, 0, (1, 1), 1), (16, 16, 3, 4, 1, (4, 1), 2), (16, 16, 3, 2, 1, (8, 8), 1),
    (16, 16, 5, 3, 2, (2, 7), 16),
]  # fmt: skip
"""Channels, kernel, stride, padding, map and groups; most have weights that meet only padding."""


@pytest.mark.parametrize("kind", ["values", "autocast"])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("width", "out", "kernel", "stride", "padding", "size", "groups"), STRIDED)
def test_half_precision_has_the_gradients_of_full_precision(
    width: int, out: int, kernel: int, stride: int, padding: int, size: tuple[int, int],
    groups: int, channels_last: bool, kind: str,
) -> None:  # fmt: skip
    """oneDNN leaves some of them unwritten: they hold what the memory held before."""
    torch.manual_seed(0)
    plain = nn.Conv2d(width, out, kernel, stride, padding, groups=groups)
    plain = plain.to(torch.bfloat16).double()
    images = torch.randn(16, width, *size).to(torch.bfloat16)
    found = plain(images.double())
    found.square().sum().backward()
    own = lay_out(copy.deepcopy(plain).float(), channels_last=channels_last)
    own.zero_grad()
    if kind == "values":
        own = own.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
        loss = own(images).double().square().sum()
    spoiled = [torch.full((2**exponent,), torch.nan) for exponent in range(8, 20) for _ in range(4)]
    del spoiled  # the memory that the backward pass is given
    loss.backward()
    expected, gradient = plain.weight.grad, own.weight.grad
    assert expected is not None
    assert gradient is not None
    scale = expected.abs().max()
    torch.testing.assert_close(gradient.double() / scale, expected / scale, rtol=0, atol=0.03)


def test_weights_that_meet_only_padding_are_found() -> None:
    def unused(*given: int, size: tuple[int, int]) -> list[list[int]] | None:
        found = layout._unused(nn.Conv2d(1, 1, *given), torch.zeros(1, 1, *size))
        return None if found is None else found.int().tolist()

    assert unused(3, 2, 1, size=(2, 2)) == [[1, 1, 1], [1, 0, 0], [1, 0, 0]]
    assert unused(3, 2, 1, size=(1, 1)) == [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
    assert unused(3, 2, 2, size=(1, 1)) == [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    assert unused(3, 2, 1, size=(4, 4)) is None
    assert unused(1, 2, 0, size=(1, 1)) is None
    assert unused(3, 1, 2, 2, size=(1, 3)) == [[1, 1, 1], [0, 0, 0], [1, 1, 1]]


def test_a_copy_computes_with_its_own_weights(products: list[torch.Size]) -> None:
    first = lay_out(nn.Conv2d(512, 512, 3, 1, 1))
    second = copy.deepcopy(first)
    with torch.no_grad():
        second.weight.zero_()
    images = torch.randn(1, 512, 2, 2)
    assert first(images).std() > 0.1
    assert torch.equal(second(images), conv2d(images, second.weight, second.bias, padding=1))
    assert len(products) == 2
