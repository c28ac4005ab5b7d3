from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from transferlab import planning
from transferlab.errors import UserError
from transferlab.planning import Plan, plan_source
from transferlab.scouting.features import extract
from transferlab.scouting.sources import Source, open_source, probabilities

MakePlan = Callable[..., Plan]
GLYPHS = ("source=glyphs", "source.dataset.per_class=4", "source.pretrain.budget.steps=2",
          "source.pretrain.batch_size=8")  # fmt: skip


def silent(line: str) -> None:
    pass


def told(plan: Plan, source: Source) -> np.ndarray:
    """The source's probabilities for the target's training images."""
    features = extract(source.model, plan.data, plan.train, torch.device("cpu"))
    assert source.classifier is not None
    return probabilities(source.classifier, torch.from_numpy(features)).numpy()


def images(plan: Plan) -> torch.Tensor:
    raw = torch.from_numpy(plan.data.store.images(plan.train)).float() / 255
    return plan.data.preprocessing.normalise(raw)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file in timm's layout, its classifier of 7 classes included."""
    torch.manual_seed(3)
    model = timm.create_model("test_resnet", num_classes=7)
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)
    return path


@pytest.mark.parametrize("kind", ["published", "checkpoint"])
def test_a_file_in_timms_layout_tells_its_own_classes(
    kind: str, make_plan: MakePlan, published: Path
) -> None:
    plan = make_plan(f"source={kind}", f"source.path={published}")
    found = told(plan, open_source(plan, silent))
    torch.manual_seed(3)
    whole = timm.create_model("test_resnet", num_classes=7).eval()
    with torch.no_grad():
        expected = whole(images(plan)).softmax(dim=1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reached", [True, False])
def test_weights_of_the_hub_tell_their_classes_where_it_is_reached_again(
    reached: bool, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = timm.create_model

    def stand_in(name: str, pretrained: bool = False, **kwargs: object) -> torch.nn.Module:
        if pretrained and "num_classes" not in kwargs and not reached:
            raise OSError("no network")
        torch.manual_seed(3)
        return create(name.partition(".")[0], pretrained=False, **{"num_classes": 7, **kwargs})

    monkeypatch.setattr(timm, "create_model", stand_in)
    planning._external.cache_clear()
    plan = make_plan("source=published", f"name=hub{reached}")
    source = open_source(plan, silent)
    planning._external.cache_clear()
    assert (source.classifier is not None) == reached
    if reached:
        assert told(plan, source).shape == (50, 7)


def test_a_dataset_brings_its_classes_and_images_and_is_announced_once(
    make_plan: MakePlan, fresh_cache: Path
) -> None:
    plan, lines = make_plan(*GLYPHS), []
    source = open_source(plan, lines.append)
    own = plan_source(plan.cfg)
    assert len(lines) == 1
    assert "pretraining on glyphs: 2 steps of 8" in lines[0]
    assert told(plan, source).shape == (50, len(own.data.store.classes))
    assert source.data is not None
    assert set(source.train) == set(own.train)
    again = make_plan("source=checkpoint", f"source.path={own.directory}")
    np.testing.assert_array_equal(told(plan, source), told(again, open_source(again, lines.append)))
    open_source(plan, lines.append)
    assert len(lines) == 1


def test_weights_without_a_classifier_have_none(make_plan: MakePlan, tmp_path: Path) -> None:
    path = tmp_path / "body.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), path)
    plan = make_plan("source=checkpoint", f"source.path={path}")
    assert open_source(plan, silent).classifier is None


def test_a_head_that_is_not_linear_is_no_classifier(make_plan: MakePlan, tmp_path: Path) -> None:
    body = timm.create_model("test_resnet", num_classes=0).state_dict()
    state = {f"backbone.{key}": value for key, value in body.items()}
    state |= {"head.0.weight": torch.zeros(5, 64), "head.2.weight": torch.zeros(3, 5)}
    path = tmp_path / "mlp.safetensors"
    save_file(state, path)
    plan = make_plan("source=checkpoint", f"source.path={path}")
    assert open_source(plan, silent).classifier is None


def test_a_head_on_the_map_does_not_change_what_the_source_is(
    make_plan: MakePlan, published: Path
) -> None:
    plain = make_plan("source=checkpoint", f"source.path={published}")
    pooled = make_plan("source=checkpoint", f"source.path={published}", "head=concat_pool")
    found = told(pooled, open_source(pooled, silent))
    np.testing.assert_array_equal(found, told(plain, open_source(plain, silent)))


def test_classes_that_the_checkpoint_does_not_have_are_an_error(
    make_plan: MakePlan, published: Path
) -> None:
    plan = make_plan("source=checkpoint", f"source.path={published}", "source.classes=9")
    with pytest.raises(UserError, match="has 7 rows"):
        open_source(plan, silent)
