import pytest
import torch
from torch import nn

from transferlab.backbones.timm import create_backbone, feature_width
from transferlab.callbacks.bss import BSS, smallest_squared
from transferlab.errors import UserError
from transferlab.fitting import fit
from transferlab.heads.linear import LinearHead
from transferlab.model import TransferModel


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (7, 7)])
@pytest.mark.parametrize("k", [1, 3, 6])
def test_value_and_gradient_are_those_of_the_singular_values(
    shape: tuple[int, int], k: int
) -> None:
    torch.manual_seed(1)
    features = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    other = features.detach().clone().requires_grad_(True)
    value = smallest_squared(features, k)
    expected = torch.linalg.svdvals(other).sort().values[:k].square().sum()
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(features.grad, other.grad)
    assert torch.autograd.gradcheck(lambda x: smallest_squared(x, k), [features])


def test_all_of_them_sum_to_the_squared_norm() -> None:
    features = torch.randn(5, 9)
    torch.testing.assert_close(smallest_squared(features, 5), features.square().sum())


def test_equal_and_zero_singular_values_have_finite_gradients() -> None:
    for matrix in (torch.eye(4, 6), torch.zeros(4, 6), torch.ones(4, 6)):
        features = matrix.clone().requires_grad_(True)
        value = smallest_squared(features, 2)
        value.backward()
        assert value >= 0
        assert torch.isfinite(features.grad).all()


def test_a_small_value_beside_a_large_one_is_kept() -> None:
    sizes = torch.tensor([1e3, 1.0, 1e-2])
    left, right = (torch.linalg.qr(torch.randn(n, 3, dtype=torch.float64))[0] for n in (8, 30))
    features = ((left * sizes) @ right.T).float()
    exact = torch.linalg.svdvals(features.double()).sort().values[5:][0] ** 2
    torch.testing.assert_close(smallest_squared(features, 6), exact.float(), rtol=1e-3, atol=0)


def test_low_precision_is_left_for_the_spectrum() -> None:
    features = torch.randn(8, 16)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = smallest_squared(features, 1)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, smallest_squared(features, 1))


def model(head: nn.Module | None = None) -> TransferModel:
    backbone = create_backbone("test_resnet", {}, 32)
    return TransferModel("test_resnet", backbone, head or LinearHead(feature_width(backbone), 3))


def test_the_penalty_is_eta_times_that_and_nothing_while_frozen() -> None:
    features = torch.randn(4, 9, requires_grad=True)
    value = BSS(k=2, eta=0.5).penalty(model(), features)
    torch.testing.assert_close(value, 0.5 * smallest_squared(features, 2))
    assert BSS().penalty(model(), features.detach()) is None


def test_a_step_along_the_penalty_lowers_it() -> None:
    features = torch.randn(4, 9, requires_grad=True)
    before = smallest_squared(features, 1)
    before.backward()
    assert smallest_squared(features.detach() - 0.1 * features.grad, 1) < before.detach()


def test_what_it_cannot_mean_is_refused() -> None:
    for values in ({"k": 0}, {"eta": 0.0}, {"eta": -1.0}):
        with pytest.raises(UserError, match="expected"):
            BSS(**values)
    with pytest.raises(UserError, match="batch_size"):
        BSS(k=5).penalty(model(), torch.randn(4, 9, requires_grad=True))
    with pytest.raises(UserError, match="singular values"):
        BSS().penalty(model(), torch.randn(4, 9, 2, requires_grad=True))
    head = nn.Identity()
    head.takes = "map"
    with pytest.raises(UserError, match="unpooled map"):
        BSS().adapt(model(head))


def test_runs(make_plan, tmp_path) -> None:
    plan = make_plan("strategy=bss", "source=none")
    done = fit(plan, None, tmp_path, [])
    assert done.trainer.global_step == plan.cfg.budget.steps
    without = fit(make_plan("strategy=fine_tune", "source=none"), None, tmp_path, [])
    one, other = (f.module.model.state_dict()["backbone.layer1.0.conv1.weight"]
                  for f in (done, without))  # fmt: skip
    assert not torch.equal(one, other)


def test_a_backbone_that_never_trains_is_refused(make_plan, tmp_path) -> None:
    plan = make_plan(
        "strategy=feature_extraction",
        "+strategy.callbacks.bss._target_=transferlab.callbacks.bss.BSS",
    )
    with pytest.raises(UserError, match="nothing trains the backbone"):
        fit(plan, None, tmp_path, [])
