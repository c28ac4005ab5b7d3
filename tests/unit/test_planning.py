"""A run's name follows from what defines it, and from nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from transferlab.backbones.timm import create_backbone
from transferlab.errors import UserError
from transferlab.planning import Plan, plan_run, source_config, source_identity

MakePlan = Callable[..., Plan]
CHEAP_SOURCE = ("source=glyphs", "source.dataset.per_class=10", "source.pretrain.budget.steps=2")


@pytest.mark.parametrize(
    "override",
    [
        "name=other", "tracker=tensorboard", "trainer.threads=2", "trainer.workers=1",
        "trainer.data=stream", "checkpoint.keep=none", "trainer.log_every=7",
        "trainer.validations=2", "purpose=replicate", "+settings.x=1", "data_root=elsewhere",
        "target.name=zahlen", "hydra.verbose=false", "target.images.alpha=drop",
    ],
)  # fmt: skip
def test_what_does_not_change_the_result_does_not_change_the_name(
    override: str, make_plan: MakePlan
) -> None:
    assert make_plan(override).run_id == make_plan().run_id


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.lr=0.002", "optimizer=sgd", "seed=1", "target.shots=6", "target.shots=null",
        "budget.steps=4", "batch_size=9", "backbone.image_size=40", "backbone.crop_pct=0.9",
        "backbone=resnet10t", "head=mlp", "head=cosine", "strategy=gradual_unfreezing",
        "strategy=layer_decay", "strategy=feature_extraction", "augmentation=light",
        "loss=focal", "scheduler=constant", "scheduler.warmup=0.2", "trainer.gradient_clip=1.0",
        "trainer.precision=bf16-mixed", "target.split_seed=1", "target.max_validation=30",
        "target.test=0.5", "checkpoint.select=best", "purpose=tune",
    ],
)  # fmt: skip
def test_what_changes_the_result_changes_the_name(override: str, make_plan: MakePlan) -> None:
    assert make_plan(override).run_id != make_plan().run_id


def test_the_folder_does_not_name_a_run(make_plan: MakePlan, tmp_path: Path) -> None:
    one, other = make_plan(folder=tmp_path / "a"), make_plan(folder=tmp_path / "b")
    assert one.run_id == other.run_id
    assert one.directory == tmp_path / "a" / "runs" / one.run_id
    assert other.directory == tmp_path / "b" / "runs" / other.run_id


def test_one_scratch_run_serves_every_source(make_plan: MakePlan) -> None:
    sources = [("source=none",), CHEAP_SOURCE, ("source=noise",), ("source=published",)]
    ids = {make_plan("strategy=scratch", *source).run_id for source in sources}
    assert len(ids) == 1
    assert make_plan("strategy=scratch").run_id == make_plan("strategy=fine_tune").run_id


def test_arms_share_their_source_run(make_plan: MakePlan) -> None:
    plans = [
        make_plan(*CHEAP_SOURCE, f"strategy={strategy}", f"seed={seed}", "target.shots=3",
                  f"optimizer.lr={lr}", "head=mlp", "loss=focal")
        for strategy, seed, lr in (("fine_tune", 0, 0.1), ("feature_extraction", 7, 0.2))
    ]  # fmt: skip
    sources = [plan_run(source_config(plan.cfg)) for plan in plans]
    assert sources[0].run_id == sources[1].run_id == plans[0].identity["source"]
    assert sources[0].directory == sources[1].directory
    assert "cache" in sources[0].directory.parts[-3]
    assert plans[0].run_id != plans[1].run_id


@pytest.mark.parametrize(
    "override",
    ["source.pretrain.budget.steps=3", "source.pretrain.seed=1", "source.corruption=noise",
     "source.pretrain.optimizer.lr=0.5", "source.dataset.seed=1", "backbone.image_size=40"],
)  # fmt: skip
def test_another_source_run_is_another_run(override: str, make_plan: MakePlan) -> None:
    assert make_plan(*CHEAP_SOURCE, override).run_id != make_plan(*CHEAP_SOURCE).run_id


@pytest.mark.parametrize(
    "overrides",
    [
        (), CHEAP_SOURCE, (*CHEAP_SOURCE, "strategy=scratch"), ("strategy=gradual_unfreezing",),
        ("budget.epochs=1.5", "budget.steps=null"),
        (*CHEAP_SOURCE[:2], "source.pretrain.budget.epochs=1", "source.pretrain.budget.steps=null"),
        ("augmentation=light_flip", "tracker=wandb", "target.fraction=0.1", "target.shots=null"),
    ],
)  # fmt: skip
def test_the_file_of_a_run_names_it_again(
    overrides: tuple[str, ...], make_plan: MakePlan, tmp_path: Path
) -> None:
    plan = make_plan(*overrides)
    path = tmp_path / "config.yaml"
    for cfg in (make_plan(*overrides).cfg, plan.cfg):
        path.write_text(OmegaConf.to_yaml(cfg, resolve=True))
        again = plan_run(OmegaConf.create(OmegaConf.to_object(OmegaConf.load(path))))
        assert again.run_id == plan.run_id
        assert again.identity == plan.identity


def test_a_budget_in_epochs_is_one_in_steps(make_plan: MakePlan) -> None:
    plan = make_plan("budget.epochs=2", "budget.steps=null")
    assert plan.cfg.budget.steps == 13  # two passes over 50 images in batches of 8
    assert plan.cfg.scheduler.steps == 13
    assert plan.run_id == make_plan("budget.steps=13").run_id


def test_a_pretraining_budget_in_epochs_is_one_in_steps(make_plan: MakePlan) -> None:
    epochs = ("source.pretrain.budget.epochs=1", "source.pretrain.budget.steps=null")
    source = plan_run(source_config(make_plan(*CHEAP_SOURCE[:2], *epochs).cfg))
    assert source.cfg.budget.steps == -(-len(source.train) // 64)
    assert source.cfg.scheduler.steps == source.cfg.budget.steps
    same = f"source.pretrain.budget.steps={source.cfg.budget.steps}"
    assert plan_run(source_config(make_plan(*CHEAP_SOURCE[:2], same).cfg)).run_id == source.run_id


def test_weights_are_named_by_their_content(make_plan: MakePlan, tmp_path: Path) -> None:
    import torch

    state = create_backbone("test_resnet", {}).state_dict()
    torch.save(state, tmp_path / "a.pt")
    torch.save({"state_dict": state}, tmp_path / "b.pt")
    torch.save({k: v + 1 if "conv1" in k else v for k, v in state.items()}, tmp_path / "c.pt")
    ids = [make_plan("source=checkpoint", f"source.path='{tmp_path / name}.pt'").run_id
           for name in "abc"]  # fmt: skip
    assert ids[0] == ids[1] != ids[2]
    assert make_plan().run_id not in ids


def test_random_weights_have_no_source(make_plan: MakePlan) -> None:
    assert source_identity(make_plan("source=none").cfg) is None
    assert source_identity(make_plan("strategy=scratch", *CHEAP_SOURCE).cfg) is None


def test_subsets_are_nested_and_drawn_by_seed(make_plan: MakePlan) -> None:
    small, large, other = (
        make_plan("target.shots=5", "seed=1"), make_plan("target.shots=20", "seed=1"),
        make_plan("target.shots=5", "seed=2"),
    )  # fmt: skip
    assert len(small.train) == 50
    assert set(small.train) <= set(large.train)
    assert set(small.train) != set(other.train)
    assert set(large.train) <= set(large.data.splits.train)
    assert (small.data.splits.test == other.data.splits.test).all()


def test_one_class_is_nothing_to_tell_apart(make_plan: MakePlan, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "data" / "only").mkdir(parents=True)
    for shade in range(5):
        Image.new("RGB", (8, 8), (shade, 0, 0)).save(tmp_path / "data" / "only" / f"{shade}.png")
    with pytest.raises(UserError, match="only"):
        make_plan("target=image_folder", f"target.root='{tmp_path / 'data'}'")
