"""A composed source is one dataset, and its source run one run like any other."""

from collections.abc import Callable

import numpy as np
import pytest

from transferlab.datasets.composed import ComposedStore
from transferlab.errors import UserError
from transferlab.planning import Plan, plan_run, plan_source, source_config
from transferlab.run_record import header
from transferlab.split_data import images_by_part

MakePlan = Callable[..., Plan]
FEW = "dataset: {per_class: 10}"
PARTS = f"letters: {{source: glyphs, {FEW}}}, rubbish: {{source: noise, {FEW}}}"
SMALL = ("backbone.image_size=16", "source.pretrain.budget.steps=2")
COMPOSED = ("source=composed", f"source.parts={{{PARTS}}}", *SMALL)


def test_the_source_run_draws_from_the_train_splits_of_all_parts(make_plan: MakePlan) -> None:
    source = plan_source(make_plan(*COMPOSED).cfg)
    store, train = source.data.store, source.data.splits.train
    assert isinstance(store, ComposedStore)
    assert store.classes[0] == "letters/A"
    assert store.classes[-1] == "rubbish/Z"
    alone = plan_source(make_plan("source=glyphs", "source.dataset.per_class=10", *SMALL).cfg)
    mine = train[train < store.bounds[1]]
    assert np.array_equal(mine, alone.train)
    assert np.array_equal(store.images(mine[:3]), alone.data.store.images(mine[:3]))
    assert np.array_equal(source.train, train)
    assert images_by_part(source.data, "") == {
        "letters": len(mine), "rubbish": len(train) - len(mine),
    }  # fmt: skip
    assert source.cfg.budget.steps == alone.cfg.budget.steps == 2


def test_corruption_of_a_part_is_its_own(make_plan: MakePlan) -> None:
    data = plan_source(make_plan(*COMPOSED).cfg).data
    letters, rubbish = (data.store.images(np.array([data.store.bounds[i]])) for i in (0, 1))
    assert (letters == 0).mean() > 0.3  # white on black
    assert (rubbish == 0).mean() < 0.05


def test_records_say_how_large_the_source_is(make_plan: MakePlan) -> None:
    plan = make_plan(*COMPOSED)
    said = header(plan)
    source = plan_source(plan.cfg)
    assert said["source"] == "letters+rubbish"
    size = {"images": images_by_part(source.data, ""), "steps": 2, "batch_size": 64}
    assert said["source_size"] == header(source)["source_size"] == size
    assert header(make_plan("source=none"))["source_size"] is None
    assert header(make_plan(*COMPOSED, "strategy=scratch"))["source_size"] is None


@pytest.mark.parametrize(
    "override",
    [
        "source.join=by_name", "source.leave_out=rubbish", "source.pretrain.budget.steps=3",
        "+source.parts.letters.dataset.seed=1", "+source.parts.digits={}",
        "+source.parts.rubbish.corruption_seed=1",
    ],
)  # fmt: skip
def test_another_composition_is_another_source(override: str, make_plan: MakePlan) -> None:
    assert make_plan(*COMPOSED, override).run_id != make_plan(*COMPOSED).run_id


def test_names_of_parts_do_not_name_the_run(make_plan: MakePlan) -> None:
    renamed = PARTS.replace("letters", "a").replace("rubbish", "b")
    other = make_plan(*COMPOSED[:1], f"source.parts={{{renamed}}}", *SMALL)
    assert other.run_id == make_plan(*COMPOSED).run_id


def test_one_part_that_is_left_is_what_it_is_alone(make_plan: MakePlan) -> None:
    left = make_plan(*COMPOSED, "source.leave_out=rubbish")
    alone = make_plan("source=glyphs", "source.dataset.per_class=10", *SMALL)
    assert left.run_id == alone.run_id
    assert header(left)["source"] == "letters"


def test_the_file_of_a_composed_run_names_it_again(make_plan: MakePlan) -> None:
    plan = make_plan(*COMPOSED)
    assert plan_run(plan.cfg).run_id == plan.run_id
    source = source_config(plan.cfg)
    assert plan_run(plan_run(source).cfg).run_id == plan_run(source).run_id


def test_what_is_wrong_with_a_part_names_the_part(make_plan: MakePlan) -> None:
    parts = f"source.parts={{{PARTS.replace('rubbish: {', 'rubbish: {group_by: patient, ')}}}"
    with pytest.raises(UserError, match=r"`source\.parts\.rubbish\.group_by=patient`"):
        make_plan("source=composed", parts, *SMALL)


def test_parts_that_share_images_say_how_to_drop_them(make_plan: MakePlan) -> None:
    parts = PARTS.replace("noise", "random_labels")  # the letters' own images again
    options = ("source=composed", f"source.parts={{{parts}}}", *SMALL)
    with pytest.raises(UserError, match=r"`source\.duplicates=drop`"):
        make_plan(*options)
    dropped = plan_source(make_plan(*options, "source.duplicates=drop").cfg)
    assert images_by_part(dropped.data, "")["letters"] < len(dropped.data.splits.train)
