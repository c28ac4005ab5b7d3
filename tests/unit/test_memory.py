"""What a run is said to take follows from its shapes."""

from typing import Any

import pytest

from transferlab.memory import Memory, expected_memory

LINE = ("backbone=timm", "backbone.name=test_vit", "backbone.image_size=160", "source=none",
        "strategy.init=source", "trainer.precision=32-true", "batch_size=8",
        "budget.steps=120")  # fmt: skip


def test_parts_follow_from_the_model_and_what_trains(make_plan: Any) -> None:
    whole = expected_memory(make_plan(*LINE, "strategy=fine_tune"))
    head = expected_memory(make_plan(*LINE, "strategy=feature_extraction"))
    momentum = expected_memory(make_plan(*LINE, "strategy=fine_tune", "optimizer=sgd"))
    assert whole.weights == head.weights > 0
    assert whole.training == 3 * whole.weights, "a ViT has no buffers: a gradient and two moments"
    assert momentum.training == 2 * whole.weights
    assert 0 < head.training < 0.05 * whole.training
    assert whole.features == 0 < head.features
    assert whole.total == whole.weights + whole.training + whole.activations


def test_activations_grow_with_the_batch_alone(make_plan: Any) -> None:
    def activations(*more: str) -> int:
        return expected_memory(make_plan(*LINE, "strategy=fine_tune", *more)).activations

    large = activations("batch_size=64")
    assert activations("batch_size=128") == 2 * large
    assert activations("batch_size=128", "trainer.accumulate=2") == large
    assert activations("batch_size=64", "trainer.gradient_checkpointing=true") < 0.7 * large
    assert activations("batch_size=64", "trainer.precision=bf16-mixed") < 0.8 * large


def test_features_are_a_row_an_image_and_bounded(make_plan: Any) -> None:
    plan = make_plan(*LINE, "strategy=feature_extraction")
    images = len(plan.train) + len(plan.data.splits.validation) + len(plan.data.splits.test)
    assert expected_memory(plan).features == images * 64 * 4
    bounded = make_plan(*LINE, "strategy=feature_extraction", "trainer.reuse_gb=1e-6")
    assert expected_memory(bounded).features == int(1e-6 * 2**30)
    assert expected_memory(make_plan(*LINE, "strategy=feature_extraction",
                                     "trainer.reuse_gb=0")).features == 0  # fmt: skip


def test_what_is_kept_for_phases_to_come_counts(make_plan: Any) -> None:
    """Features of the frozen backbone, and as many tokens before each block."""
    line = (*LINE, "backbone.name=vit_tiny_patch16_224", "+backbone.kwargs.depth=2",
            "backbone.image_size=32", "target.shots=5")  # fmt: skip
    plan = make_plan(*line, "strategy=gradual_unfreezing", "strategy.groups=blocks")
    images = len(plan.train) + len(plan.data.splits.validation)
    numbers = 192 + 2 * (4 + 1) * 192  # features; tokens and the class token before both blocks
    assert expected_memory(plan).features == images * numbers * 4
    once = make_plan(*line, "strategy=gradual_unfreezing", "strategy.groups=blocks",
                     "augmentation=light")  # fmt: skip
    assert expected_memory(once).features == 0, "augmented anew at every step"


@pytest.mark.parametrize("head", ["knn", "ridge"])
def test_nothing_trains_behind_a_head_in_closed_form(head: str, make_plan: Any) -> None:
    found = expected_memory(make_plan(*LINE, "strategy=feature_extraction", f"head={head}"))
    assert found.training == 0


def test_it_is_told_in_parts() -> None:
    text = str(Memory(2**20, 3 * 2**20, 2**31, 0))
    assert text.startswith("about 2.0 GiB of memory beside PyTorch's own (1.0 MiB weights, 3.0 MiB")
    assert "frozen" not in text
