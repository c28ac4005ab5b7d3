import pytest
import torch
from torch import Tensor

from transferlab.backbones.timm import create_backbone, feature_width
from transferlab.callbacks.l2_sp import L2SP
from transferlab.errors import UserError
from transferlab.fitting import fit
from transferlab.heads.linear import LinearHead
from transferlab.model import TransferModel

NONE = torch.zeros(0)


@pytest.fixture
def model() -> TransferModel:
    torch.manual_seed(0)
    backbone = create_backbone("test_resnet", {}, 32)
    return TransferModel("test_resnet", backbone, LinearHead(feature_width(backbone), 3))


def moved(model: TransferModel) -> dict[str, Tensor]:
    """Move every parameter away from where it is; returns where it was, in float64."""
    start = {n: p.detach().double().clone() for n, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return start


def test_at_the_start_only_the_head_is_pulled(model: TransferModel) -> None:
    callback = L2SP(alpha=0.5, beta=0.3)
    callback.adapt(model)
    value = callback.penalty(model, NONE)
    head = sum(p.detach().square().sum() for p in model.head.parameters())
    torch.testing.assert_close(value.detach(), 0.15 * head)
    value.backward()
    assert all(not p.grad.any() for p in model.backbone.parameters())


def test_value_and_gradient_are_those_of_the_formula(model: TransferModel) -> None:
    callback = L2SP(alpha=0.04, beta=0.02)
    callback.adapt(model)
    start = moved(model)
    value = callback.penalty(model, NONE)
    expected = 0.0
    value.backward()
    for name, parameter in model.named_parameters():
        now = parameter.detach().double()
        head = name.startswith("head.")
        gap, strength = (now, 0.02) if head else (now - start[name], 0.04)
        expected += strength / 2 * float((gap**2).sum())
        # norm weights and biases of the body are in start and enter like all others
        torch.testing.assert_close(parameter.grad.double(), strength * gap, rtol=1e-4, atol=1e-7)
    assert float(value.detach()) == pytest.approx(expected, rel=1e-5)


def test_what_does_not_train_is_left_out(model: TransferModel) -> None:
    callback = L2SP()
    callback.adapt(model)
    moved(model)
    whole = float(callback.penalty(model, NONE).detach())
    model.backbone.layer1.requires_grad_(False)
    part = float(callback.penalty(model, NONE).detach())
    assert part < whole
    model.requires_grad_(False)
    assert callback.penalty(model, NONE) is None
    model.head.requires_grad_(True)
    assert L2SP(alpha=1.0, beta=0.0).penalty(model, NONE) is None


def test_the_start_is_a_copy_and_no_part_of_the_model(model: TransferModel) -> None:
    before = set(model.state_dict())
    callback = L2SP()
    callback.adapt(model)
    moved(model)
    assert set(model.state_dict()) == before
    assert callback.state_dict() == {}
    callback.adapt(model)  # from here on this is the start
    model.head.requires_grad_(False)
    assert float(callback.penalty(model, NONE).detach()) == 0.0


@pytest.mark.parametrize(
    "values", [{"alpha": -1.0}, {"beta": -0.1}, {"alpha": 0.0, "beta": 0.0}, {"weight_decay": -1.0}]
)
def test_strengths_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UserError, match="expected"):
        L2SP(**values)


def test_a_run_has_no_weight_decay_and_stays_near_its_start(make_plan, tmp_path) -> None:
    def distance(*overrides: str) -> tuple[float, set[float]]:
        plan = make_plan("strategy=l2_sp", "source=none", "optimizer.lr=0.01", *overrides)
        done = fit(plan, None, tmp_path, [])
        callback = next(c for c in done.trainer.callbacks if isinstance(c, L2SP))
        gap = L2SP(alpha=2.0, beta=0.0)
        gap._start = callback._start
        done.module.model.requires_grad_(True)
        decays = {g["weight_decay"] for g in done.trainer.optimizers[0].param_groups}
        return float(gap.penalty(done.module.model, NONE).detach()), decays

    weak, decays = distance()
    assert decays == {0.0}
    strong, _ = distance("strategy.callbacks.l2_sp.alpha=100")
    assert strong < weak
    _, kept = distance("strategy.callbacks.l2_sp.weight_decay=null")
    assert kept == {0.0, 0.05}
