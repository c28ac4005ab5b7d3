"""Heads on the unpooled map, and the one function that reads it."""

import pytest
import torch
from torch import nn

from transferlab.errors import UserError
from transferlab.heads.attention_pool import AttentionPoolHead
from transferlab.heads.concat_pool import ConcatPoolHead
from transferlab.heads.tokens import MapLayout, map_layout, to_tokens

WIDTH, CLASSES = 16, 5
LAYOUTS = {
    "NCHW": (MapLayout("NCHW", WIDTH), (4, WIDTH, 3, 5)),
    "NHWC": (MapLayout("NHWC", WIDTH), (4, 3, 5, WIDTH)),
    "NLC": (MapLayout("NLC", WIDTH), (4, 15, WIDTH)),
    "prefix": (MapLayout("NLC", WIDTH, prefix=2), (4, 17, WIDTH)),
}


def build(make, layout: MapLayout, **options):
    torch.manual_seed(0)
    head = make(WIDTH, CLASSES, layout, **options).eval()
    for parameter in head.parameters():  # nothing is 0 or 1 any more
        nn.init.normal_(parameter, std=0.5)
    return head


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("make", [AttentionPoolHead, ConcatPoolHead])
def test_heads_map_any_layout_to_one_logit_a_class(make, kind: str) -> None:
    layout, shape = LAYOUTS[kind]
    head = make(WIDTH, CLASSES, layout)
    assert head.takes == "map"
    features = torch.randn(shape, requires_grad=True)
    logits = head(features)
    assert logits.shape == (4, CLASSES)
    logits.logsumexp(dim=1).sum().backward()
    assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize("make", [AttentionPoolHead, ConcatPoolHead])
def test_layouts_of_the_same_map_give_the_same_logits(make) -> None:
    tokens = torch.randn(4, 15, WIDTH)
    grid = tokens.view(4, 3, 5, WIDTH)
    found = [
        build(make, LAYOUTS["NLC"][0])(tokens),
        build(make, LAYOUTS["NHWC"][0])(grid),
        build(make, LAYOUTS["NCHW"][0])(grid.permute(0, 3, 1, 2)),
    ]
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


@pytest.mark.parametrize("make", [AttentionPoolHead, ConcatPoolHead])
def test_the_order_of_positions_does_not_count(make) -> None:
    head = build(make, LAYOUTS["NCHW"][0])
    features = torch.randn(4, WIDTH, 15)
    turned = features[:, :, torch.randperm(15)]
    logits = head(features.view(4, WIDTH, 3, 5))
    torch.testing.assert_close(head(turned.reshape(4, WIDTH, 3, 5)), logits)
    other = features.clone()
    other[:, :, 0] = torch.randn(WIDTH)
    assert not torch.allclose(head(other.view(4, WIDTH, 3, 5)), logits)


def test_attention_repeats_of_all_tokens_change_nothing() -> None:
    head = build(AttentionPoolHead, LAYOUTS["NLC"][0])
    tokens = torch.randn(4, 15, WIDTH)
    torch.testing.assert_close(head(tokens.repeat(1, 3, 1)), head(tokens))


def test_attention_on_a_single_token_is_a_linear_map_of_it() -> None:
    head = build(AttentionPoolHead, LAYOUTS["NLC"][0])
    token = torch.randn(4, 1, WIDTH)
    value = head.pool.kv(head.norm(token))[:, 0, WIDTH:]
    torch.testing.assert_close(head(token), head.classifier(value))


def test_attention_sees_the_prefix_where_it_is_let() -> None:
    layout, shape = LAYOUTS["prefix"]
    features = torch.randn(shape)
    changed = features.clone()
    changed[:, :2] += 1 + torch.rand(WIDTH)
    blind = build(AttentionPoolHead, layout, prefix_tokens=False)
    seeing = build(AttentionPoolHead, layout)
    assert torch.equal(blind(changed), blind(features))
    assert not torch.allclose(seeing(changed), seeing(features))


def test_attention_takes_an_mlp_behind_it() -> None:
    plain = AttentionPoolHead(WIDTH, CLASSES, LAYOUTS["NLC"][0])
    deep = AttentionPoolHead(WIDTH, CLASSES, LAYOUTS["NLC"][0], mlp_ratio=4.0)
    assert plain.pool.mlp is None
    assert deep.pool.mlp.fc1.out_features == 4 * WIDTH
    assert deep(torch.randn(4, 3, WIDTH)).shape == (4, CLASSES)


def test_concat_pool_is_the_head_of_fastai() -> None:
    head = ConcatPoolHead(WIDTH, CLASSES, LAYOUTS["NCHW"][0])
    norm, drop, first, relu, norm2, drop2, last = head.layers
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.num_features == 2 * WIDTH
    assert isinstance(drop, nn.Dropout)
    assert drop.p == 0.25
    assert isinstance(first, nn.Linear)
    assert (first.in_features, first.out_features, first.bias) == (2 * WIDTH, 512, None)
    assert isinstance(relu, nn.ReLU)
    assert isinstance(norm2, nn.BatchNorm1d)
    assert norm2.num_features == 512
    assert isinstance(drop2, nn.Dropout)
    assert drop2.p == 0.5
    assert isinstance(last, nn.Linear)
    assert (last.in_features, last.out_features, last.bias) == (512, CLASSES, None)


def test_concat_pool_starts_as_kaiming_says() -> None:
    torch.manual_seed(0)
    head = ConcatPoolHead(512, 100, MapLayout("NCHW", 512))
    for layer in (head.layers[2], head.layers[6]):
        expected = (2 / layer.in_features) ** 0.5
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.02)
        assert layer.weight.mean().item() == pytest.approx(0, abs=expected / 50)


def test_concat_pool_is_mean_beside_maximum_of_positions_alone() -> None:
    layout, shape = LAYOUTS["prefix"]
    head = ConcatPoolHead(WIDTH, CLASSES, layout)
    head.layers = nn.Identity()
    features = torch.randn(shape)
    positions = features[:, 2:]
    expected = torch.cat([positions.mean(dim=1), positions.max(dim=1).values], dim=1)
    torch.testing.assert_close(head(features), expected)


@pytest.mark.parametrize("heads", [0, 3, 32])
def test_heads_that_do_not_divide_the_width_are_refused_with_those_that_do(heads: int) -> None:
    with pytest.raises(UserError, match=rf"head.heads={heads} .* 1, 2, 4, 8, 16"):
        AttentionPoolHead(WIDTH, CLASSES, LAYOUTS["NLC"][0], heads=heads)


@pytest.mark.parametrize(
    "make",
    [lambda: AttentionPoolHead(8, 2, MapLayout("NLC", 8), mlp_ratio=-1),
     lambda: ConcatPoolHead(8, 2, MapLayout("NLC", 8), hidden=0),
     lambda: ConcatPoolHead(8, 2, MapLayout("NLC", 8), dropout=1.0)],
)  # fmt: skip
def test_senseless_settings_are_refused(make) -> None:
    with pytest.raises(UserError, match="expected"):
        make()


class Fixed(nn.Module):
    """A backbone that gives the same features whatever it is shown."""

    def __init__(self, features, **attributes) -> None:
        super().__init__()
        self.features = features
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward_features(self, images):
        assert not self.training
        return self.features


SQUARE = torch.zeros(1, 6, 6, 6)


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        (Fixed(torch.zeros(1, 8, 2, 3)), MapLayout("NCHW", 8)),
        (Fixed(torch.zeros(1, 2, 3, 8), output_fmt="NHWC"), MapLayout("NHWC", 8)),
        (Fixed(SQUARE), MapLayout("NCHW", 6)),
        (Fixed(SQUARE, output_fmt="NHWC"), MapLayout("NHWC", 6)),
        (Fixed(torch.zeros(1, 5, 8)), MapLayout("NLC", 8)),
        (Fixed(torch.zeros(1, 5, 8), num_prefix_tokens=1), MapLayout("NLC", 8, 1)),
        (Fixed(torch.zeros(1, 1, 8), num_prefix_tokens=1), MapLayout("NLC", 8, 0)),
    ],
)
def test_layout_follows_the_shape_and_what_the_backbone_says(backbone, expected) -> None:
    assert map_layout(backbone, torch.zeros(1, 3, 8, 8)) == expected
    assert backbone.training, "left in the mode that it was found in"


@pytest.mark.parametrize("features", [torch.zeros(1, 8), [torch.zeros(1, 4, 4)], (1, 2)])
def test_no_map_is_an_error_that_names_a_way_out(features) -> None:
    with pytest.raises(UserError, match=r"unpooled map.*head=linear"):
        map_layout(Fixed(features), torch.zeros(1, 3, 8, 8))


def test_tokens_are_the_positions_row_by_row() -> None:
    grid = torch.arange(2 * 3 * 4).view(1, 2, 3, 4)
    expected = torch.stack([grid[0, :, row, column] for row in range(3) for column in range(4)])
    assert torch.equal(to_tokens(grid, MapLayout("NCHW", 2))[0], expected)
    assert torch.equal(to_tokens(grid.permute(0, 2, 3, 1), MapLayout("NHWC", 2))[0], expected)
    tokens = expected[None]
    assert torch.equal(to_tokens(tokens, MapLayout("NLC", 2, 2)), tokens[:, 2:])
    assert torch.equal(to_tokens(tokens, MapLayout("NLC", 2, 2), prefix=True), tokens)
