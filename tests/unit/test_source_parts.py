"""From names of sources to datasets, in one line where that can't be."""

from collections.abc import Callable

import pytest
from omegaconf import DictConfig, OmegaConf

from transferlab.checks import check
from transferlab.errors import UserError
from transferlab.source_parts import OPTIONS, part_names

Compose = Callable[..., DictConfig]


def test_names_become_datasets_with_all_their_options(compose: Compose) -> None:
    cfg = compose("source=composed", "source.parts=[noise,glyphs]")
    check(cfg)
    assert part_names(cfg) == ["glyphs", "noise"]  # however they were listed
    for name in part_names(cfg):
        alone = OmegaConf.to_container(compose(f"source={name}").source)
        assert OmegaConf.to_container(cfg.source.parts[name]) == {k: alone[k] for k in OPTIONS}
    assert cfg.source.parts.noise.corruption == "noise"
    assert cfg.source.name == "glyphs+noise"
    assert cfg.source.pretrain.budget.steps == compose("source=glyphs").source.pretrain.budget.steps


def test_a_mapping_says_what_differs(compose: Compose) -> None:
    cfg = compose(
        "source=composed",
        "source.parts={few: {source: glyphs, dataset: {per_class: 7}}, noise: {test: 0.5}, "
        "digits: null}",
    )
    check(cfg)
    parts = cfg.source.parts
    assert list(parts) == ["digits", "few", "noise"]
    assert (parts.few.dataset.per_class, parts.noise.dataset.per_class) == (7, 100)
    assert (parts.few.test, parts.noise.test) == (0.25, 0.5)


def test_a_part_can_name_a_dataset_of_its_own(compose: Compose) -> None:
    node = "{mine: {dataset: {_target_: transferlab.datasets.digits.Digits}}, noise: {}}"
    cfg = compose("source=composed", f"source.parts={node}")
    check(cfg)
    assert cfg.source.parts.mine.dataset._target_.endswith("Digits")
    assert cfg.source.parts.mine.max_validation == 2000


def test_the_folder_of_a_part_reaches_its_dataset(compose: Compose) -> None:
    node = "{photos: {source: image_folder, root: some/where}, noise: {}}"
    cfg = compose("source=composed", f"source.parts={node}")
    check(cfg)
    assert cfg.source.parts.photos.dataset.root == "some/where"


@pytest.mark.parametrize(
    ("names", "left"), [("glyphs,noise", "glyphs"), ("glyphs,noise,digits", "digits+glyphs")]
)
def test_a_part_that_is_left_out_is_not_in_the_name(
    names: str, left: str, compose: Compose
) -> None:
    cfg = compose("source=composed", f"source.parts=[{names}]", "source.leave_out=noise")
    assert cfg.source.name == left
    assert "noise" in cfg.source.parts  # what it is left out of stays on record
    named = compose("source=composed", "source.parts=[glyphs,noise,digits]", "source.name=mix",
                    "source.leave_out=noise")  # fmt: skip
    assert named.source.name == "mix without noise"


def test_a_part_of_a_mapping_takes_further_options(compose: Compose) -> None:
    cfg = compose("source=composed", "source.parts={glyphs: {}, noise: {}}",
                  "+source.parts.noise.dataset.per_class=5", "+source.parts.digits={}")  # fmt: skip
    check(cfg)
    assert part_names(cfg) == ["digits", "glyphs", "noise"]
    assert cfg.source.parts.noise.dataset.per_class == 5


def test_other_sources_have_no_parts(compose: Compose) -> None:
    for source in ("none", "glyphs"):
        cfg = compose(f"source={source}")
        check(cfg)
        assert part_names(cfg) == []


WRONG = {
    "one": ("[glyphs]", "two parts or more; for one alone write source=glyphs"),
    "none": ("[]", "two parts or more"),
    "twice": ("[glyphs,noise,glyphs]", "glyphs stands there twice"),
    "unknown": ("[glyphs,nois]", "source=nois: no such choice .*nearest: noise"),
    "no dataset": ("[glyphs,published]", "source=published is no dataset"),
    "nothing": ("[glyphs,none]", "source=none is no dataset"),
    "composed": ("[glyphs,composed]", "source=composed is no dataset"),
    "one word": ("glyphs", "parts='glyphs': expected names"),
    "no mapping": ("{glyphs: 3, noise: {}}", "parts.glyphs=3: expected a mapping"),
    "slash": ("{glyphs/a: {}, noise: {}}", "no '/'"),
    "key": ("{glyphs: {corruptin: noise}, noise: {}}", "corruptin: .*nearest: corruption"),
    "budget": ("{glyphs: {pretrain: {}}, noise: {}}", "parts.glyphs.pretrain: .*source.pretrain"),
    "type": ("{glyphs: {test: many}, noise: {}}", "source.parts.glyphs: .*'many'"),
    "choice": (
        "{glyphs: {corruption: nois}, noise: {}}", "source.parts.glyphs.corruption=nois.*noise",
    ),
    "bound": ("{glyphs: {test: 1}, noise: {}}", r"source.parts.glyphs.test=1.*\(0, 1\)"),
    "image option": (
        "{glyphs: {images: {alpha: blend}}, noise: {}}", "parts.glyphs.images.alpha=blend.*white",
    ),
    "argument": (
        "{glyphs: {dataset: {per_clas: 3}}, noise: {}}",
        "source.parts.glyphs.dataset.per_clas: .*nearest: per_class",
    ),
    "root": ("{image_folder: {}, noise: {}}", "source.parts.image_folder.root"),
}  # fmt: skip


@pytest.mark.parametrize(("parts", "told"), WRONG.values(), ids=WRONG.keys())
def test_wrong_parts_are_told_in_one_line(parts: str, told: str, compose: Compose) -> None:
    with pytest.raises(UserError, match=told) as caught:
        check(compose("source=composed", f"source.parts={parts}"))
    assert "\n" not in str(caught.value)


def test_a_part_to_leave_out_must_be_one(compose: Compose) -> None:
    with pytest.raises(UserError, match=r"leave_out=nois: no such part \(nearest: noise\)"):
        compose("source=composed", "source.parts=[glyphs,noise]", "source.leave_out=nois")
