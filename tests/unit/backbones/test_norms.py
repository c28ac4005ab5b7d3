"""A narrow norm is the library's, in all that it returns, keeps and passes back."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import cross_entropy

from transferlab.backbones import norms
from transferlab.backbones.layout import lay_out

SHAPES = [(4, 8, 6, 6), (3, 24, 5, 7), (1, 36, 1, 2), (8, 12, 16, 16), (2, 1, 3, 3)]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The images whose norms were computed here; few are enough."""
    monkeypatch.setattr(norms, "VALUES", 0)
    made: list[torch.Size] = []
    original = norms._BatchNorm.apply

    def noted(images: Tensor, *rest: Any) -> Any:
        made.append(images.shape)
        return original(images, *rest)

    monkeypatch.setattr(norms._BatchNorm, "apply", noted)
    return made


def outcome(norm: nn.Module, images: Tensor) -> dict[str, Tensor]:
    images = images.clone(memory_format=torch.preserve_format).requires_grad_()
    found = norm(images)
    slope = torch.linspace(-1, 1, found.numel()).to(found).view(found.shape)
    (found * slope).sum().backward()
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert images.grad is not None
    gradients = {name: p.grad for name, p in norm.named_parameters() if p.grad is not None}
    kept = {name: value.clone() for name, value in norm.state_dict().items()}
    return {"output": found.detach(), "input": images.grad} | kept | {
        f"gradient of {name}": value for name, value in gradients.items()
    }  # fmt: skip


def drawn(norm: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for value in norm.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 2)
    return norm


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_narrow_norm_is_the_library_s(
    kind: Callable[[int], nn.Module], shape: tuple[int, ...], computed: list[torch.Size]
) -> None:
    plain = drawn(kind(shape[1])).double()
    images = (3 + 2 * torch.randn(shape, dtype=torch.float64)).contiguous(
        memory_format=torch.channels_last
    )
    own = lay_out(copy.deepcopy(plain))
    expected, found = outcome(plain, images), outcome(own, images)
    assert computed == [images.shape]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10, msg=name)


def test_far_from_zero_it_is_as_exact_as_the_library_s(computed: list[torch.Size]) -> None:
    """Sums of squares less a squared mean would lose all digits here."""
    torch.manual_seed(0)
    images = (1000 + torch.randn(16, 8, 16, 16)).contiguous(memory_format=torch.channels_last)
    exact = outcome(nn.BatchNorm2d(8).double(), images.double())
    plain, own = (outcome(norm, images) for norm in (nn.BatchNorm2d(8), lay_out(nn.BatchNorm2d(8))))
    for name in ("input", "gradient of weight", "gradient of bias"):
        error, usual = (float((found[name] - exact[name]).abs().max()) for found in (own, plain))
        assert error <= 2 * usual + 1e-6 * float(exact[name].abs().max()), name
    assert len(computed) == 1


def test_gradients_are_those_of_its_outputs_and_have_gradients(
    computed: list[torch.Size],
) -> None:
    norm = lay_out(drawn(nn.BatchNorm2d(3)).double())
    images = torch.randn(2, 3, 2, 3, dtype=torch.float64).contiguous(
        memory_format=torch.channels_last
    )
    given = (images.requires_grad_(), norm.weight, norm.bias)
    assert gradcheck(lambda x, *_: norm(x), given)
    assert gradgradcheck(lambda x, *_: norm(x), given)
    assert computed


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "as wide as a line": lambda: nn.BatchNorm2d(16),
    "wide": lambda: nn.BatchNorm2d(40),
    "without weights": lambda: nn.BatchNorm2d(8, affine=False),
    "without running statistics": lambda: nn.BatchNorm2d(8, track_running_stats=False),
    "cumulative": lambda: nn.BatchNorm2d(8, momentum=None),
    "evaluation": lambda: nn.BatchNorm2d(8).eval(),
    "a kind of its own": lambda: type("Own", (nn.BatchNorm2d,), {})(8),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_norms_are_left_to_the_library(name: str, computed: list[torch.Size]) -> None:
    norm = OTHERS[name]()
    images = torch.randn(4, norm.num_features, 4, 4).contiguous(memory_format=torch.channels_last)
    expected, found = outcome(copy.deepcopy(norm), images), outcome(lay_out(norm), images)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert not computed


@pytest.mark.parametrize("kind", ["contiguous", "without gradients", "bf16", "as it was"])
def test_other_images_are_left_to_the_library(kind: str, computed: list[torch.Size]) -> None:
    norm = lay_out(nn.BatchNorm2d(8), channels_last=kind != "as it was")
    plain = nn.BatchNorm2d(8)
    images = torch.randn(4, 8, 4, 4)
    if kind != "contiguous":
        images = images.contiguous(memory_format=torch.channels_last)
    images = images.bfloat16() if kind == "bf16" else images
    with torch.set_grad_enabled(kind != "without gradients"):
        assert torch.equal(norm(images), plain(images))
    assert not computed


@pytest.mark.parametrize(("size", "count"), [(45, 0), (46, 1)])
def test_few_values_are_left_to_the_library(
    size: int, count: int, monkeypatch: pytest.MonkeyPatch, computed: list[torch.Size]
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(norms._BatchNorm, "apply", lambda images, *_: computed.append(images.shape))
    images = torch.randn(4, 8, size, size).contiguous(memory_format=torch.channels_last)
    lay_out(nn.BatchNorm2d(8))(images)
    assert len(computed) == count


def test_one_value_a_channel_is_refused_as_ever() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        lay_out(nn.BatchNorm2d(8))(torch.randn(1, 8, 1, 1))


def test_an_efficientnet_trains_as_before(computed: list[torch.Size]) -> None:
    torch.manual_seed(0)
    plain = timm.create_model("test_efficientnet", num_classes=3)
    own = lay_out(copy.deepcopy(plain))
    assert [type(m) for m in own.modules()] == [type(m) for m in plain.modules()]
    assert own.state_dict().keys() == plain.state_dict().keys()
    plain = plain.to(memory_format=torch.channels_last)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 3
    for model in (plain, own):
        cross_entropy(model(images), labels).backward()
    assert len(computed) == 2
    for (name, one), other in zip(plain.named_parameters(), own.parameters(), strict=True):
        assert one.grad is not None, name
        scale = one.grad.abs().max() + 1e-6
        torch.testing.assert_close(one.grad / scale, other.grad / scale, rtol=1e-3, atol=1e-4)
    for (name, one), other in zip(plain.named_buffers(), own.buffers(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5, msg=name)


def test_a_copy_keeps_its_own_statistics(computed: list[torch.Size]) -> None:
    first = lay_out(nn.BatchNorm2d(8))
    second = copy.deepcopy(first)
    images = torch.randn(4, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    second(images)
    assert len(computed) == 1
    assert (int(first.num_batches_tracked), int(second.num_batches_tracked)) == (0, 1)
    assert float(first.running_mean.abs().max()) == 0 < float(second.running_mean.abs().max())
