"""What leaves a layer group is what enters the next one, whatever the backbone is made of."""

import pytest
import torch
from torch import Tensor, nn

from transferlab.backbones.timm import create_backbone
from transferlab.layer_taps import GroupTaps
from transferlab.model import TransferModel
from transferlab.parts import Parts


class Net(nn.Module):
    """A backbone whose activations are known: each stage multiplies by two and clips in place."""

    num_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(3, 3, 1, bias=False) for _ in range(3))
        self.act = nn.ReLU(inplace=True)
        for layer in (self.one, self.two, self.three):
            nn.init.dirac_(layer.weight).data.mul_(2)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.three(self.act(self.two(self.act(self.one(images)))))
        return out.mean((2, 3))


def wrapped(backbone: nn.Module, width: int) -> TransferModel:
    return TransferModel("net", backbone, nn.Linear(width, 2)).eval()


def test_activations_are_those_that_enter_the_next_group() -> None:
    model = wrapped(Net(), 3)
    images = torch.tensor([[[[1.0]], [[-1.0]], [[0.5]]]]).expand(1, 3, 2, 2).clone()
    with GroupTaps(model).open(model.backbone) as read:
        found = read(images)
    assert list(found) == ["one", "two", "three"]
    assert found["one"].tolist() == [[2.0, 0.0, 1.0]]  # after the activation between the groups
    assert found["two"].tolist() == [[4.0, 0.0, 2.0]]
    assert found["three"].tolist() == [[8.0, 0.0, 4.0]]


def test_no_hook_stays_behind() -> None:
    model = wrapped(Net(), 3)
    taps = GroupTaps(model)
    with pytest.raises(RuntimeError, match="channels"), taps.open(model.backbone) as read:
        read(torch.zeros(1, 5, 2, 2))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("granularity", ["stages", "blocks"])
@pytest.mark.parametrize(
    "name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_nfnet"]
)
def test_every_layer_group_of_a_backbone_is_read(name: str, granularity) -> None:
    torch.manual_seed(0)
    backbone = create_backbone(name, {}, 64)
    width = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    model = wrapped(backbone, width)
    images = torch.randn(5, 3, 64, 64)
    with torch.no_grad(), GroupTaps(model, granularity).open(backbone) as read:
        found = read(images)
        again = read(images)
        pooled = backbone(images)
    assert list(found) == [group.name for group in Parts(model, granularity).groups[:-1]]
    assert all(values.ndim == 2 and len(values) == 5 for values in found.values())
    assert all(torch.equal(found[name], again[name]) for name in found)
    assert torch.equal(found[list(found)[-1]], pooled)


def test_channels_that_come_last_are_not_averaged_away() -> None:
    backbone = create_backbone("swin_tiny_patch4_window7_224", {"depths": [1, 1]}, 64)
    model = wrapped(backbone, backbone.num_features)
    with torch.no_grad(), GroupTaps(model).open(backbone) as read:
        found = read(torch.randn(2, 3, 64, 64))
    assert next(iter(found.values())).shape == (2, 96)


def test_one_layer_changes_what_leaves_it_and_what_comes_after() -> None:
    torch.manual_seed(0)
    model = wrapped(create_backbone("test_resnet", {}), 96)
    images, taps = torch.randn(4, 3, 32, 32), GroupTaps(model)
    with torch.no_grad(), taps.open(model.backbone) as read:
        before = read(images)
        for parameter in model.backbone.layer2.parameters():
            parameter.add_(0.1)
        after = read(images)
    same = [torch.equal(before[name], after[name]) for name in before]
    assert same == [True, True, False, False, False]
