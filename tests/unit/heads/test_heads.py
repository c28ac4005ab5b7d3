import pytest
import torch

from transferlab.errors import UserError
from transferlab.heads.cosine import CosineHead
from transferlab.heads.linear import LinearHead
from transferlab.heads.mlp import MLPHead


@pytest.mark.parametrize("make", [LinearHead, MLPHead, CosineHead])
def test_heads_map_features_to_one_logit_a_class(make) -> None:
    head = make(in_features=12, num_classes=7)
    assert head(torch.randn(5, 12)).shape == (5, 7)
    assert all(p.requires_grad for p in head.parameters())


@pytest.mark.parametrize("make", [LinearHead, MLPHead])
def test_linear_and_mlp_start_near_the_uniform_prediction(make) -> None:
    torch.manual_seed(0)
    head = make(in_features=12, num_classes=7)
    probabilities = head(torch.randn(50, 12)).softmax(dim=-1)
    assert (probabilities - 1 / 7).abs().max() < 0.05


def test_the_cosine_head_ignores_the_norm_of_features() -> None:
    head = CosineHead(12, 7, scale=10.0)
    features = torch.randn(5, 12)
    torch.testing.assert_close(head(features), head(1000 * features))
    torch.testing.assert_close(head(features), -head(-features))


def test_cosine_logits_are_cosines_times_the_scale() -> None:
    head = CosineHead(3, 2, scale=4.0)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.5]]))
    expected = torch.tensor([[4 * 0.6, 4 * 0.8], [4.0, 0.0]])
    torch.testing.assert_close(head(torch.tensor([[3.0, 0.0, 4.0], [7.0, 0.0, 0.0]])), expected)


def test_the_mlp_drops_hidden_units_in_training_alone() -> None:
    head = MLPHead(12, 7, hidden=64, dropout=0.5)
    torch.nn.init.normal_(head[-1].weight)
    features = torch.randn(2, 12)
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))


@pytest.mark.parametrize(
    "make",
    [lambda: MLPHead(4, 2, hidden=0), lambda: MLPHead(4, 2, dropout=1.0),
     lambda: CosineHead(4, 2, scale=0.0)],
)  # fmt: skip
def test_senseless_sizes_are_refused(make) -> None:
    with pytest.raises(UserError, match="expected"):
        make()
