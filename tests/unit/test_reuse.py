"""Fits behind a frozen part end with the weights, scores and cost that they should."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from transferlab import fitting, reuse
from transferlab.fitting import Fit
from transferlab.frozen_part import Cut
from transferlab.frozen_pass import computed
from transferlab.planning import Plan
from transferlab.run import execute

LINE = (
    "backbone=timm", "backbone.image_size=32", "source=none", "strategy.init=source",
    "target.shots=6", "budget.steps=100", "optimizer=sgd", "optimizer.lr=0.01", "batch_size=10",
    "trainer.validations=6", "trainer.precision=32-true",
)  # fmt: skip
GRADUAL = ("strategy=gradual_unfreezing", "strategy.callbacks.gradual_unfreezing.share=0.9")
FROZEN = ("strategy=feature_extraction",)


@pytest.fixture
def fit(make_plan: Callable[..., Plan]) -> Callable[..., Fit]:
    """Fit a short run, with or without reuse."""

    def run(*overrides: str, reuse: bool) -> Fit:
        plan = make_plan(*LINE, *overrides, f"trainer.reuse_gb={2 if reuse else 0}")
        made = plan.directory.with_name(f"{plan.run_id}-{reuse}")
        return fitting.fit(plan, None, made, [])

    return run


def apart(one: Fit, other: Fit) -> float:
    pairs = zip(one.module.model.state_dict().values(),
                other.module.model.state_dict().values(), strict=True)  # fmt: skip
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("strategy", [FROZEN, GRADUAL], ids=["frozen", "gradual"])
@pytest.mark.parametrize(
    "backbone",
    [
        ("test_resnet",), ("mobilenetv3_small_050",), ("test_convnext",),
        ("vit_tiny_patch16_224", "+backbone.kwargs.depth=4"),
    ],
    ids=lambda backbone: backbone[0],
)  # fmt: skip
def test_a_fit_ends_as_without(
    backbone: tuple[str, ...], strategy: tuple[str, ...], fit: Any
) -> None:
    name, *more = backbone
    line = (f"backbone.name={name}", *more, *strategy, "optimizer.lr=0.001")
    plain, reusing = (fit(*line, reuse=reuse) for reuse in (False, True))
    assert apart(plain, reusing) < 1e-5
    for one, other in zip(plain.history.curve, reusing.history.curve, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert reusing.cost.training_multiply_adds < plain.cost.training_multiply_adds
    assert reusing.cost.trainable_parameters == plain.cost.trainable_parameters


def test_where_training_magnifies_every_rounding_double_precision_shows_it_equal(fit: Any) -> None:
    """At ten times the rate, two fits in fp32 part by 0.02 to 0.5 after one other last bit."""
    line = ("backbone.name=test_resnet", *GRADUAL, "trainer.precision=64-true")
    plain, reusing = (fit(*line, reuse=reuse) for reuse in (False, True))
    assert apart(plain, reusing) < 1e-9


@pytest.mark.parametrize("strategy", [FROZEN, GRADUAL], ids=["frozen", "gradual"])
def test_the_frozen_part_sees_every_image_once(
    strategy: tuple[str, ...], fit: Any, monkeypatch: pytest.MonkeyPatch, fresh_cache: Path
) -> None:
    del fresh_cache
    seen: list[int] = []
    assembled = fitting.assemble

    def watching(plan: Plan, weights: Any) -> Any:
        module, data, callbacks = assembled(plan, weights)
        stem = next(m for m in module.model.backbone.modules() if isinstance(m, torch.nn.Conv2d))
        stem.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        return module, data, callbacks

    monkeypatch.setattr(fitting, "assemble", watching)
    made = fit("backbone.name=test_resnet", *strategy, reuse=True)
    assert made.module.reuse is not None
    # 60 training and 20 validation images, each in a block of 64, of which 2 are tried again,
    # for each of the phases that need it
    assert seen.count(64) == 2
    assert seen.count(2) == (2 if strategy == FROZEN else 2 * 5)
    trained = [count for count in seen if count == 10]
    assert bool(trained) == (strategy == GRADUAL), "in the last phase the stem itself trains"


def test_phases_that_find_no_room_are_computed_when_they_come(
    fit: Any, make_plan: Callable[..., Plan], fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for the maps in front of every group, but not for all of them at once."""
    line = ("backbone.name=test_resnet", *GRADUAL, "optimizer.lr=0.001")
    largest = 8192 * 80  # bytes of what leaves the stem, for 60 and 20 images
    plan = make_plan(*LINE, *line, f"trainer.reuse_gb={1.3 * largest / 2**30}")
    made: list[int] = []

    def counting(*given: Any) -> Any:
        found = computed(*given)
        made.append(len(found))
        return found

    monkeypatch.setattr(reuse, "computed", counting)
    whole = fit(*line, reuse=True)
    assert made == [5, 5], "training and validation images"
    made.clear()
    shutil.rmtree(fresh_cache / "features")
    tight = fitting.fit(plan, None, plan.directory, [])
    assert made == [3, 3, 1, 1, 1, 1]
    assert apart(tight, whole) == 0, "and to the bit"
    assert tight.cost.training_multiply_adds == whole.cost.training_multiply_adds


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("augmentation=light",), "augmented anew"),
        (("augmentation=mixup", "views=2"), "mixed"),
        (("augmentation=light", "views=20"), "less than 1.5 times"),
        (("budget.steps=8",), "less than 1.5 times"),
        (("strategy=fine_tune",), "nothing in front"),
        (("trainer.reuse_gb=1e-7",), "takes 0.0 GiB for 60 images"),
    ],
)
def test_where_it_would_be_wrong_or_useless_the_whole_model_runs(
    more: tuple[str, ...], why: str, make_plan: Callable[..., Plan]
) -> None:
    plan = make_plan(*LINE, "backbone.name=test_resnet", *FROZEN, *more)
    made = fitting.fit(plan, None, plan.directory, [])
    assert made.module.reuse is not None
    assert why in str(made.module.reuse.why_not)


def test_validation_images_that_find_no_room_go_through_the_model(
    fit: Any, make_plan: Callable[..., Plan]
) -> None:
    """The training images' 60 rows of 96 numbers fit, 20 more do not."""
    line = ("backbone.name=test_resnet", *FROZEN)
    plan = make_plan(*LINE, *line, f"trainer.reuse_gb={60 * 96 * 4.5 / 2**30}")
    tight = fitting.fit(plan, None, plan.directory, [])
    assert tight.module.reuse is not None
    assert tight.module.reuse.why_not is None
    assert apart(tight, fit(*line, reuse=False)) < 1e-5


def test_dropout_in_front_is_still_and_behind_it_drops(fit: Any) -> None:
    line = ("backbone.name=test_convnext", "+backbone.kwargs.drop_path_rate=0.3", *GRADUAL)
    plain, reusing = (fit(*line, reuse=reuse) for reuse in (False, True))
    assert apart(plain, reusing) < 1e-5


def test_under_mixed_precision_too(fit: Any) -> None:
    line = ("backbone.name=test_resnet", *FROZEN, "trainer.precision=bf16-mixed")
    plain, reusing = (fit(*line, reuse=reuse) for reuse in (False, True))
    assert apart(plain, reusing) < 1e-2
    head = reusing.module.model.head
    assert all(p.dtype == torch.float32 for p in head.parameters())


@pytest.mark.parametrize("strategy", [FROZEN, GRADUAL], ids=["frozen", "gradual"])
def test_fixed_views_are_reused_too(strategy: tuple[str, ...], fit: Any) -> None:
    slow = (*strategy, "optimizer.lr=0.001")
    line = ("backbone.name=test_resnet", *slow, "augmentation=light", "views=2")
    plain, reusing = (fit(*line, reuse=reuse) for reuse in (False, True))
    assert apart(plain, reusing) < 1e-5
    assert reusing.cost.training_multiply_adds < plain.cost.training_multiply_adds
    one = fit(*line, "views=1", reuse=True)
    assert apart(one, reusing) > 1e-3, "the second view was another one"


@pytest.fixture
def no_backbone(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and from then on the frozen part of no model may compute anything."""

    def never(*_: Any) -> Any:
        raise AssertionError("it was computed by an earlier run")

    return lambda: monkeypatch.setattr(Cut, "before", never)


def test_runs_share_what_their_frozen_parts_compute(
    make_plan: Callable[..., Plan], no_backbone: Callable[[], None], tmp_path: Path
) -> None:
    """Other rates and heads, the same images and weights: also at the end, on the test images."""
    line = (*LINE, "backbone.name=test_resnet", *FROZEN, "purpose=replicate")
    records = []
    for more in (("optimizer.lr=0.02",), ("optimizer.lr=0.03", "head=mlp"), ("optimizer.lr=0.02",)):
        plan = make_plan(*line, *more)
        plan = replace(plan, directory=tmp_path / f"run{len(records)}")
        records.append(execute(plan))
        no_backbone()
    first, _, again = records
    assert first["metrics"] == again["metrics"], "and to the bit"
    assert first["curve"] == again["curve"]
    count = "training_multiply_adds"
    assert first["cost"][count] == again["cost"][count], "as if each had computed it"


@pytest.mark.parametrize("head", ["ridge", "logistic", "knn", "prototype"])
def test_heads_in_closed_form_cost_no_pass_either(
    head: str, make_plan: Callable[..., Plan], no_backbone: Callable[[], None], tmp_path: Path
) -> None:
    """Fitting, validation and test: all features are those of the run before."""
    line = (*LINE, "backbone.name=test_resnet", *FROZEN, "purpose=replicate", "seed=4")
    plain = execute(replace(make_plan(*line, f"head={head}", "trainer.reuse_gb=0"),
                            directory=tmp_path / "plain"))  # fmt: skip
    execute(replace(make_plan(*line), directory=tmp_path / "one"))
    no_backbone()
    record = execute(replace(make_plan(*line, f"head={head}"), directory=tmp_path / "other"))
    assert record["status"] == "done"
    for split in ("validation", "test"):
        assert record["metrics"][split] == pytest.approx(plain["metrics"][split], abs=1e-3)


@pytest.mark.parametrize("more", ["seed=1", "backbone.image_size=48", "trainer.threads=1"])
def test_other_images_weights_or_threads_are_something_else(
    more: str,
    make_plan: Callable[..., Plan],
    no_backbone: Callable[[], None],
    tmp_path: Path,
    fresh_cache: Path,
) -> None:
    del fresh_cache
    line = (*LINE, "backbone.name=test_resnet", *FROZEN, "trainer.threads=2")
    execute(replace(make_plan(*line), directory=tmp_path / "one"))
    no_backbone()
    record = execute(replace(make_plan(*line, more), directory=tmp_path / "other"))
    assert "computed by an earlier run" in record["reason"]
