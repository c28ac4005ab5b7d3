from collections.abc import Callable
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from transferlab.composing import parse
from transferlab.errors import UserError
from transferlab.study.declaration import Declaration, declare, override

ARMS = {"source": ["glyphs", "noise"], "strategy": ["feature_extraction", "fine_tune"]}


def declared(study: dict[str, Any] | None, *overrides: str) -> Declaration:
    cfg = OmegaConf.create({"seed": 0, "study": study})
    if study is not None:
        cfg.study = {"cells": {}, "tune": None, "seeds": 3} | study
    return declare(cfg, parse(list(overrides)))


def test_axes_are_crossed() -> None:
    made = declared({"cells": {"target.shots": [5, 20]}, "arms": ARMS})
    assert [cell.id for cell in made.cells] == ["target.shots=5", "target.shots=20"]
    assert [cell.overrides for cell in made.cells] == [("target.shots=5",), ("target.shots=20",)]
    assert [arm.id for arm in made.arms] == [
        "feature_extraction from glyphs", "fine_tune from glyphs",
        "feature_extraction from noise", "fine_tune from noise",
    ]  # fmt: skip
    assert made.arms[0].overrides == ("source=glyphs", "strategy=feature_extraction")
    assert made.seeds == (0, 1, 2)
    assert not made.tuned


def test_arms_can_be_named_lists_of_overrides() -> None:
    made = declared(
        {"arms": {"mine": ["source=glyphs", "optimizer.lr=0.1"], "other": ["head=mlp"]}}
    )
    assert [(arm.id, arm.overrides) for arm in made.arms] == [
        ("mine", ("source=glyphs", "optimizer.lr=0.1")), ("other", ("head=mlp",)),
    ]  # fmt: skip
    assert [cell.id for cell in made.cells] == ["all"]


def test_a_grid_becomes_arms_cells_and_seeds() -> None:
    made = declared(
        None, "strategy=scratch,fine_tune", "source=glyphs", "seed=0,1,2", "target.shots=5,20",
        "optimizer.lr=1e-3,1e-2", "budget.steps=7",
    )  # fmt: skip
    assert made.shared == ("source=glyphs", "budget.steps=7")
    assert made.seeds == (0, 1, 2)
    assert [cell.values for cell in made.cells] == [
        {"target.shots": shots, "optimizer.lr": lr} for shots in (5, 20) for lr in (1e-3, 1e-2)
    ]
    assert made.cells[0].overrides == ("target.shots=5", "optimizer.lr=0.001")
    assert [arm.id for arm in made.arms] == ["scratch", "fine_tune"]
    assert made.arms[-1].overrides == ("strategy=fine_tune",)


def test_a_cell_that_is_asked_for_twice_is_one() -> None:
    made = declared(None, "trainer.devices=1,2,1")
    assert [cell.values for cell in made.cells] == [{"trainer.devices": n} for n in (1, 2)]
    assert made.repeated == ("trainer.devices=1",)


def test_folders_of_one_name_stay_two_cells() -> None:
    made = declared(None, "target.root=a/scans,b/scans")
    assert len(made.cells) == 2
    assert made.repeated == ()


def test_ranges_are_swept_too() -> None:
    assert declared(None, "seed=range(4)").seeds == (0, 1, 2, 3)


def test_sweeps_on_the_command_line_join_a_study() -> None:
    study = {"arms": ARMS, "cells": {"target.shots": [5]}}
    made = declared(study, "backbone=test_resnet,resnet10t", "seed=3,4")
    assert [cell.id for cell in made.cells] == [
        "target.shots=5, backbone=test_resnet", "target.shots=5, backbone=resnet10t",
    ]  # fmt: skip
    assert made.seeds == (3, 4)
    assert len(made.arms) == 4


@pytest.mark.parametrize(
    ("study", "told"),
    [
        ({"arms": {}}, "study.arms is empty"),
        ({"arms": {"source": []}}, "empty list"),
        ({"arms": {"mine": ["source=glyphs"], "strategy": ["fine_tune"]}}, "mixes axes"),
        ({"arms": ARMS, "cells": {"target.shots": []}}, "study.cells.target.shots is an empty"),
    ],
)
def test_declarations_without_sense_are_refused(study: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        declared(study)


def test_a_seed_that_stands_twice_is_refused() -> None:
    with pytest.raises(UserError, match="seed=1,2,1"):
        declared(None, "seed=1,2,1")


@pytest.mark.parametrize(
    "value",
    [
        "plain", "with space", "a,b", "a=b", "it's", '"quoted"', "both ' and \"", "#hash", "a#b",
        "[list]", "{dict: 1}", "C:\\new\\table", "ends with \\", "\\'", "$HOME", "~", "~home",
        "a:b", "naïve/größe", "", "null", "true", "5", "1e-3", "0x1", "-", "--", ".", "inf", "nan",
        "5-shot", "007", "1_000", "(a)", "a|b", "a*b", "%", "@", "?", "!", "tab\there",
        5, -1, 0.001, 1e-05, 1e30, True, False, None, [], [1, 2.5], ["a b", "c,d", None, True, "5"],
        {"a": 1, "b": ["x y", {"c": None}]}, [[1], ["it's"]],
    ],
    ids=repr,
)  # fmt: skip
def test_overrides_come_back_from_hydras_parser(value: Any) -> None:
    text = override("key.sub", value)
    (parsed,) = OverridesParser.create().parse_overrides([text])
    assert parsed.get_key_element() == "key.sub"
    assert not parsed.is_sweep_override()
    found = parsed.value()
    assert found == value
    assert type(found) is type(value)


def test_overrides_reach_the_configuration(compose: Callable[..., DictConfig]) -> None:
    root = "/data/my pets, 100% 'real' = #1"
    cfg = compose("target=image_folder", override("target.root", root))
    assert cfg.target.root == cfg.target.dataset.root == root
