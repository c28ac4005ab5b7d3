"""Heads that are computed together are what they are alone, to the bit."""

import pytest
import torch
from torch import nn

from transferlab.heads.cosine import CosineHead
from transferlab.heads.linear import LinearHead
from transferlab.heads.mlp import MLPHead
from transferlab.heads.stack import Stack


def some(count: int, kind: type[nn.Module] = LinearHead) -> list[nn.Module]:
    torch.manual_seed(0)
    heads = [kind(40, 7) for _ in range(count)]
    for head in heads:
        for parameter in head.parameters():
            nn.init.normal_(parameter)
    return heads


@pytest.mark.parametrize("kind", [LinearHead, CosineHead, MLPHead])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_logits_and_gradients_are_those_of_each_alone(count: int, kind: type[nn.Module]) -> None:
    features, target = torch.randn(9, 40), torch.randn(9, 7)
    alone, both = some(count, kind), some(count, kind)
    stack = Stack(both)
    for _ in range(2):  # gradients don't add up
        stack.clear()
        logits = stack.forward(features)
        assert logits.shape == (count, 9, 7)
        (logits * target).square().mean((1, 2)).sum().backward()
    for head, own, found in zip(alone, both, logits, strict=True):
        expected = head(features)
        (expected * target).square().mean().backward()
        torch.testing.assert_close(found, expected)
        for one, other in zip(head.parameters(), own.parameters(), strict=True):
            torch.testing.assert_close(other.grad, one.grad)


def test_a_step_moves_the_heads_own_parameters() -> None:
    heads = some(3)
    before = [head.weight.clone() for head in heads]
    stack = Stack(heads)
    stack.forward(torch.randn(4, 40)).sum().backward()
    torch.optim.SGD(heads[1].parameters(), lr=0.1).step()
    moved = [not torch.equal(h.weight, b) for h, b in zip(heads, before, strict=True)]
    assert moved == [False, True, False]
    assert torch.equal(stack.forward(torch.eye(40))[1], heads[1](torch.eye(40)))


def test_company_changes_no_bit() -> None:
    features = torch.randn(32, 40)
    found = []
    for count in (1, 2, 3, 8, 40):
        stack = Stack(some(40)[:count])
        logits = stack.forward(features)
        logits.square().sum().backward()
        found.append((logits[0].detach(), stack.heads[0].weight.grad))
    for logits, gradient in found[1:]:
        assert torch.equal(logits, found[0][0])
        assert torch.equal(gradient, found[0][1])
