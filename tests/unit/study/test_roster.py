from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from transferlab.errors import UserError
from transferlab.study.declaration import SCRATCH, Arm, Cell, Declaration
from transferlab.study.roster import Excluded, with_controls, with_parts_left_out, with_scratch

CELL = Cell("all")


class Composed:
    """Composes arms as a study does, without Hydra's loader."""

    def __init__(self, compose: Callable[..., DictConfig]) -> None:
        self.compose = compose

    def of(self, declaration: Declaration, cell: Cell, arm: Arm, *more: str) -> DictConfig:
        return self.compose(*declaration.shared, *cell.overrides, *arm.overrides, *more)


@pytest.fixture
def roster(compose: Callable[..., DictConfig]) -> Callable[..., list[Arm]]:
    def make(
        *arms: tuple[str, ...], add: bool = True, controls: bool = True, leave_out: bool = False
    ) -> list[Arm]:
        named = tuple(Arm(" ".join(overrides), overrides) for overrides in arms)
        declaration = Declaration((), (CELL,), named, (0, 1), False)
        configs = Composed(compose)
        found = with_scratch(CELL, declaration, configs, add=add)
        if leave_out:
            found = with_parts_left_out(found, CELL, declaration, configs)
        return with_controls(found, CELL, declaration, configs) if controls else found

    return make


def test_scratch_joins_once_for_all_sources(roster) -> None:
    arms = roster(("source=glyphs", "strategy=fine_tune"), ("source=noise", "strategy=fine_tune"))
    assert [arm.role for arm in arms] == ["scratch", "transfer", "transfer"]
    assert arms[0].overrides == SCRATCH
    assert {arm.control for arm in arms[1:]} == {"scratch"}


def test_scratch_is_recognised_by_what_it_does(roster) -> None:
    for own in (("strategy=scratch",), ("source=none", "strategy=fine_tune"),
                ("source=glyphs", "strategy=scratch")):  # fmt: skip
        arms = roster(("source=glyphs", "strategy=fine_tune"), own)
        assert [(arm.id, arm.role) for arm in arms] == [
            ("scratch", "scratch"), ("source=glyphs strategy=fine_tune", "transfer"),
        ]  # fmt: skip
        assert arms[0].overrides == own


def test_equal_scratch_arms_are_one(roster) -> None:
    arms = roster(("source=glyphs", "strategy=scratch"), ("source=noise", "strategy=scratch"),
                  ("source=noise", "strategy=fine_tune"))  # fmt: skip
    assert [arm.role for arm in arms] == ["scratch", "transfer"]


def test_scratch_arms_of_different_settings_are_refused(roster) -> None:
    with pytest.raises(UserError, match=r"study\.cells"):
        roster(("strategy=scratch", "head=linear"), ("strategy=scratch", "head=mlp"))


def test_no_scratch_where_none_is_asked_for(roster) -> None:
    arms = roster(("source=glyphs", "strategy=fine_tune"), add=False, controls=False)
    assert [arm.role for arm in arms] == ["transfer"]


def test_a_frozen_strategy_gets_one_random_control(roster) -> None:
    arms = roster(("source=glyphs", "strategy=feature_extraction"),
                  ("source=noise", "strategy=feature_extraction"))  # fmt: skip
    (control,) = [arm for arm in arms if arm.role == "control"]
    assert control.overrides == ("source=none", "strategy=feature_extraction")
    assert {arm.control for arm in arms if arm.role == "transfer"} == {control.id}


MIXED = ("source=composed", "source.parts=[glyphs,noise,digits]")


def test_every_part_of_a_composed_source_is_left_out_once(roster) -> None:
    arms = roster((*MIXED, "strategy=fine_tune"), ("source=glyphs", "strategy=fine_tune"),
                  leave_out=True)  # fmt: skip
    (whole,) = [arm for arm in arms if arm.overrides[:1] == MIXED[:1] and arm.role == "transfer"]
    without = [arm for arm in arms if arm.role == "ablation"]
    assert [(arm.of, arm.without) for arm in without] == [
        (whole.id, "digits"), (whole.id, "glyphs"), (whole.id, "noise"),
    ]  # fmt: skip
    for arm in without:
        assert arm.overrides == (*whole.overrides, f"source.leave_out={arm.without}")
        assert arm.control is None
    assert [arm.role for arm in arms] == ["scratch", "transfer", "transfer", *["ablation"] * 3]
    assert len({arm.id for arm in arms}) == len(arms)


def test_a_part_left_out_of_a_frozen_arm_needs_no_control_of_its_own(roster) -> None:
    arms = roster((*MIXED, "strategy=feature_extraction"), leave_out=True)
    assert [arm.role for arm in arms].count("control") == 1


@pytest.mark.parametrize(
    "arm",
    [("source=glyphs", "strategy=fine_tune"), (*MIXED, "strategy=scratch"),
     (*MIXED, "strategy=fine_tune", "source.leave_out=noise")],
)  # fmt: skip
def test_leaving_parts_out_where_there_are_none_is_refused(arm: tuple[str, ...], roster) -> None:
    with pytest.raises(UserError, match="no arm has a composed source"):
        roster(arm, leave_out=True)


CELLS = tuple(Cell(f"shots={n}", (f"target.shots={n}",)) for n in (5, 20))
ARMS = (
    Arm("letters", ("source=glyphs", "strategy=fine_tune")),
    Arm("noise", ("source=noise", "strategy=fine_tune")),
)


def kept(compose: Callable[..., DictConfig], *rules: dict[str, object]) -> list[list[str]]:
    declaration = Declaration((), CELLS, ARMS, (0, 1), False)
    excluded = Excluded(rules)
    found = [excluded.admitted(cell, declaration, Composed(compose)) for cell in CELLS]
    excluded.require_used()
    return [[arm.id for arm in each.arms] for each in found]


def test_cells_go_without_what_a_rule_says(compose) -> None:
    assert kept(compose) == [["letters", "noise"]] * 2
    assert kept(compose, {"target.shots": 5, "source.name": "noise"}) == [
        ["letters"], ["letters", "noise"],
    ]  # fmt: skip
    assert kept(compose, {"source.name": "noise"}) == [["letters"]] * 2


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"source.nam": "noise"}, "nearest: source.name"),
        ({"source.name": "ghosts"}, "no arm of any cell has {source.name: ghosts}"),
        ({"target.shots": 5}, "leaves no arm in the cell shots=5"),
        ({}, "expected keys and values"),
    ],
)
def test_rules_that_do_nothing_or_too_much_are_refused(compose, rule, words: str) -> None:
    with pytest.raises(UserError, match=words):
        kept(compose, rule)
