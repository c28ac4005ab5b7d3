"""Closed-form heads follow the backbone below them: read off real fits."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from transferlab import fitting
from transferlab.callbacks.refit import Refit
from transferlab.errors import UserError
from transferlab.fitting import Fit, fit
from transferlab.planning import Plan
from transferlab.refitting import can_refit, needs_training, refit_head

MakePlan = Callable[..., Plan]
AUGMENTED = ("augmentation=light_flip",)


def class_means(fitted: Fit, plan: Plan) -> Tensor:
    """The mean pooled features of each class, computed by hand."""
    model, data = fitted.module.model.cpu().eval(), plan.data
    raw = torch.from_numpy(data.store.images(plan.train)).float() / 255
    with torch.no_grad():
        features = model.backbone(data.preprocessing.normalise(raw))
    labels = torch.from_numpy(np.asarray(data.store.labels)[plan.train])
    return torch.stack([features[labels == k].mean(dim=0) for k in range(len(data.store.classes))])


@pytest.mark.parametrize("strategy", ["fine_tune", "feature_extraction"])
def test_prototypes_fit_the_weights_that_stay(
    strategy: str, make_plan: MakePlan, tmp_path: Path
) -> None:
    plan = make_plan("head=prototype", f"strategy={strategy}", *AUGMENTED)
    fitted = fit(plan, None, tmp_path, [])
    found = fitted.module.model.head.centres
    torch.testing.assert_close(found, class_means(fitted, plan), rtol=1e-3, atol=1e-3)
    assert found.abs().sum() > 0


def test_prototypes_of_the_best_weights_are_put_back(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan(
        "head=prototype", "strategy=scratch", "checkpoint.select=best", "trainer.validations=3"
    )
    fitted = fit(plan, None, tmp_path, [])
    found = fitted.module.model.head.centres
    torch.testing.assert_close(found, class_means(fitted, plan), rtol=1e-3, atol=1e-3)


class Counted(Refit):
    """Count refits and remember at which step they came."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        Counted.steps = []

    def _refit(self, trainer, pl_module) -> None:
        before = pl_module.model.head.centres.clone()
        modes = {n: m.training for n, m in pl_module.named_modules()}
        super()._refit(trainer, pl_module)
        assert {n: m.training for n, m in pl_module.named_modules()} == modes
        if not torch.equal(before, pl_module.model.head.centres):
            Counted.steps.append(trainer.global_step)

    steps: list[int]


@pytest.mark.parametrize(
    ("strategy", "expected"), [("fine_tune", [0, 1, 2, 3]), ("feature_extraction", [0])]
)
def test_refits_come_before_every_validation_and_once_where_nothing_changes(
    strategy: str, expected: list[int], make_plan: MakePlan, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(fitting, "Refit", Counted)
    plan = make_plan("head=prototype", f"strategy={strategy}", "trainer.validations=3")
    fit(plan, None, tmp_path, [])
    assert Counted.steps == expected


def test_heads_without_a_closed_form_get_no_callback(make_plan: MakePlan, tmp_path: Path) -> None:
    fitted = fit(make_plan(), None, tmp_path, [])
    assert not any(isinstance(c, Refit) for c in fitted.trainer.callbacks)


def test_knn_takes_no_step_and_remembers_the_training_set(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    plan = make_plan("head=knn", "strategy=feature_extraction", *AUGMENTED)
    fitted = fit(plan, None, tmp_path, [])
    head = fitted.module.model.head
    assert fitted.trainer.global_step == 0
    assert len(head.keys) == len(plan.train) == 50
    torch.testing.assert_close(head.keys.norm(dim=1), torch.ones(50))
    assert head.labels.tolist() == np.asarray(plan.data.store.labels)[plan.train].tolist()
    assert [point["step"] for point in fitted.history.curve] == [0]


@pytest.mark.parametrize("strategy", ["fine_tune", "gradual_unfreezing"])
def test_knn_refuses_a_backbone_that_trains(strategy: str, make_plan: MakePlan) -> None:
    with pytest.raises(UserError, match=r"head=knn gives no gradient: use strategy=feature_extr"):
        make_plan("head=knn", f"strategy={strategy}")


class Model(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = nn.Linear(2, 2), head


def test_what_needs_training() -> None:
    plain, silent = nn.Linear(2, 2), nn.Identity()
    silent.gradient = False
    assert needs_training(Model(plain), trains_backbone=True)
    assert needs_training(Model(plain), trains_backbone=False)
    assert needs_training(Model(nn.Identity()), trains_backbone=True)
    assert not needs_training(Model(nn.Identity()), trains_backbone=False)
    assert not needs_training(Model(silent), trains_backbone=True)
    assert not needs_training(Model(plain.requires_grad_(False)), trains_backbone=False)


def test_a_refit_under_inference_mode_leaves_buffers_that_can_train(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    plan = make_plan("head=prototype", "strategy=fine_tune")
    fitted = fit(plan, None, tmp_path, [])
    model = fitted.module.model.train()
    asked = fitted.data.predicted
    with torch.inference_mode():
        refit_head(model, fitted.data, torch.device("cpu"))
    assert model.training
    assert fitted.data.predicted is asked
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert can_refit(model)


def test_classes_without_images_do_not_stop_a_fit(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan("head=prototype")
    labels = np.asarray(plan.data.store.labels)[plan.train]
    object.__setattr__(plan, "train", plan.train[labels != 3])
    fitted = fit(plan, None, tmp_path, [])
    assert fitted.module.model.head.present.tolist() == [k != 3 for k in range(10)]
