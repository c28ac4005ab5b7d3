"""A model that was cut computes what the whole one does, whatever it is made of."""

import pytest
import timm
import torch
from torch import Tensor, nn

from transferlab.forward_graph import Followed, NoCutError
from transferlab.frozen_part import Cut, Moving, OnePass, per_image
from transferlab.model import TransferModel
from transferlab.parts import Parts

NAMES = (
    "test_resnet", "test_efficientnet", "mobilenetv3_small_050", "test_convnext",
    "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "regnetx_002", "mixer_s32_224",
)  # fmt: skip
OFF_SIZE = {"mixer_s32_224": 224, "deit_tiny_distilled_patch16_224": 224}


def model_of(backbone: nn.Module, features: int, name: str = "own") -> TransferModel:
    torch.manual_seed(0)
    return TransferModel(name, backbone, nn.Linear(features, 3)).train()


def freeze_front(model: TransferModel, groups: int) -> frozenset[str]:
    """Freeze so many layer groups from the front; returns what trains."""
    parts = Parts(model, "stages")
    chosen = frozenset(name for group in parts.groups[groups:] for name in group.parameters)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    model.hold(parts.modes(chosen, "follow", "follow"))
    return chosen


@pytest.mark.parametrize("name", NAMES)
def test_both_parts_together_are_the_model(name: str) -> None:
    size = OFF_SIZE.get(name, 64)
    fixed = {} if name in OFF_SIZE or "vit" not in name else {"img_size": size}
    backbone = timm.create_model(name, num_classes=0, **fixed)
    model = model_of(backbone, backbone.num_features, name)
    images = torch.randn(3, backbone.default_cfg["input_size"][0], size, size)
    count = len(Parts(model, "stages").groups)
    for groups in sorted({1, count // 2, count - 1}):
        trained = freeze_front(model, groups)
        cut = Cut(model)
        values = per_image(cut.before(images), 3)
        model.eval()
        with torch.no_grad():
            torch.testing.assert_close(cut.after(values), model.features(images), rtol=0, atol=0)
        model.train()
        behind = {id(p) for p in cut._after.parameters()}
        for own, parameter in model.named_parameters():
            if own in trained and own.startswith("backbone"):
                assert id(parameter) in behind, f"{own} trains behind the cut"
        in_front = {id(p) for p in cut._before.parameters()}
        assert in_front
        assert not any(p.requires_grad for p in model.parameters() if id(p) in in_front)


def test_gradients_behind_the_cut_are_those_of_the_whole_model() -> None:
    model = model_of(timm.create_model("test_resnet", num_classes=0), 96)
    freeze_front(model, 3)
    images = torch.randn(4, 3, 32, 32)
    found = []
    for features in (lambda: model.features(images), None):
        model.zero_grad()
        if features is None:
            cut = Cut(model)
            values = cut.before(images)
            found_features = cut.after(values)
        else:
            found_features = features()
        model.head(found_features).square().sum().backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 3
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_head_that_takes_the_map_gets_it() -> None:
    class Mean(nn.Module):
        takes = "map"

        def forward(self, values: Tensor) -> Tensor:
            return values.mean((2, 3))

    model = TransferModel("own", timm.create_model("test_resnet", num_classes=0), Mean()).train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.hold([(module, False) for module in model.backbone.modules()])
    images = torch.randn(2, 3, 32, 32)
    cut = Cut(model)
    assert torch.equal(cut.after(cut.before(images)), model.features(images))


class Residual(nn.Module):
    """Two values cross the cut; the later layers write in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.third = nn.Linear(4, 4)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        one = self.first(x)
        two = self.second(one)
        return self.third(self.act(two)) + one


def held(model: TransferModel, trained: str) -> TransferModel:
    chosen = frozenset(n for n, _ in model.named_parameters() if trained in n or "head" in n)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    model.hold(Parts(model, "stages").modes(chosen, "follow", "follow"))
    return model


def test_several_values_may_cross() -> None:
    model = held(model_of(Residual(), 4), "third")
    cut = Cut(model)
    inputs = torch.randn(5, 4)
    values = per_image(cut.before(inputs), 5)
    assert len(values) == 2
    assert torch.equal(cut.after(values), model.features(inputs))


def test_frozen_layers_behind_trained_ones_are_not_in_front() -> None:
    model = held(model_of(Residual(), 4), "second")
    cut = Cut(model)
    names = {name for name, _ in cut._before.named_parameters()}
    assert {name.split(".")[-2] for name in names} == {"first"}


class Writing(Residual):
    """The layer behind a cut writes into what crosses it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(self.first, nn.Tanh(), nn.ReLU(inplace=True), self.second)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.body(x))


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "own"])
def test_one_pass_gives_what_crosses_every_cut_to_the_bit(name: str) -> None:
    """Also where the backbone is taken whole, and where later layers write in place."""
    if name == "own":
        model, images = model_of(Writing(), 4), torch.randn(8, 4)
        trained = ["none", "third", "second", "body.2"]
        model.backbone.body[2].weight = nn.Parameter(torch.ones(1))  # so that a phase can train it
        states = [held(model, one) and Moving.now(model) for one in trained]
    else:
        backbone = timm.create_model(name, num_classes=0)
        model, images = model_of(backbone, backbone.num_features, name), torch.randn(8, 3, 64, 64)
        count = len(Parts(model, "stages").groups)
        states = [freeze_front(model, n) and Moving.now(model) for n in range(count - 1, 0, -1)]
    followed = Followed(model)
    cuts = [Cut(followed, state) for state in states]
    assert not cuts[0].crossing, "taken whole"
    model.eval()
    with torch.no_grad():
        alone = [cut.before(images) for cut in cuts]
        joint = OnePass(cuts)(images)
    for one, other in zip(alone, joint, strict=True):
        assert all(map(torch.equal, one, other))


class Moody(nn.Module):
    """Computes something else in training."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(2 * x if self.training else x)


class Dropping(Moody):
    """Drops values without a module for it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.second(nn.functional.dropout(self.first(x), 0.5, training=self.training))


class Looking(Moody):
    """Looks at its values."""

    def forward(self, x: Tensor) -> Tensor:
        return self.second(x if x.sum() > 0 else self.first(x))


class Mixing(Moody):
    """Lets images see each other: one row for the whole batch crosses the cut."""

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).mean(0))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Moody, "another one in training"),
        (Dropping, "another one in training"),
        (Looking, "can't be followed"),
    ],
)
def test_what_cant_be_cut_says_why(kind: type[nn.Module], reason: str) -> None:
    model = held(model_of(kind(), 4), "second")
    with pytest.raises(NoCutError, match=reason):
        Cut(model)
    assert model.training
    assert not model.backbone.first.training, "modes are as they were"


def test_values_that_are_not_one_an_image_are_refused() -> None:
    model = held(model_of(Mixing(), 4), "second")
    with pytest.raises(NoCutError, match="one tensor an image"):
        per_image(Cut(model).before(torch.randn(6, 4)), 6)


def test_nothing_is_frozen_in_front() -> None:
    model = held(model_of(Residual(), 4), "backbone")
    with pytest.raises(NoCutError, match="nothing in front"):
        Cut(model)
    model = held(model_of(Residual(), 4), "first")
    with pytest.raises(NoCutError, match="nothing in front"):
        Cut(model)


def test_a_norm_in_train_mode_is_not_in_front() -> None:
    backbone = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    model = held(model_of(backbone, 4), "2")
    Cut(model)
    model.hold([(backbone[1], True), (backbone[0], False)])
    names = {n for n, _ in Cut(model)._before.named_parameters()}
    assert all("backbone.0." in name for name in names)
