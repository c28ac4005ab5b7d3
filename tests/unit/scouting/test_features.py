from collections.abc import Callable

import numpy as np
import pytest
import torch

from transferlab.assembling import build_model
from transferlab.planning import Plan
from transferlab.scouting import features
from transferlab.scouting.features import calibrate_norms, device_for, extract

MakePlan = Callable[..., Plan]
CPU = torch.device("cpu")


@pytest.fixture
def plan(make_plan: MakePlan) -> Plan:
    return make_plan()


def model_of(plan: Plan):
    return build_model(plan.cfg, len(plan.data.store.classes), plan.data.preprocessing.size)


def test_features_are_those_of_the_images_in_their_order(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, positions = model_of(plan), plan.train[::-1].copy()
    monkeypatch.setattr(features, "EVALUATION_BATCH", 8)
    found = extract(model, plan.data, positions, CPU)
    raw = torch.from_numpy(plan.data.store.images(positions)).float() / 255
    with torch.no_grad():
        expected = model.eval().backbone(plan.data.preprocessing.normalise(raw))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_calibrated_norms_hold_the_images_statistics(plan: Plan) -> None:
    model = model_of(plan)
    calibrate_norms(model, plan.data, plan.train, CPU)
    first = model.norm_layers()[0]
    seen = []
    hook = first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    extract(model, plan.data, plan.train, CPU)
    hook.remove()
    mean = torch.cat(seen).mean(dim=(0, 2, 3))
    torch.testing.assert_close(first.running_mean, mean, rtol=1e-3, atol=1e-4)
    assert not any(module.training for module in model.modules())


def test_one_pass_takes_the_device_that_the_trainer_asks_for(compose) -> None:
    assert device_for(compose("trainer.accelerator=cpu")) == CPU
