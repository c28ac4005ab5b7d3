from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from transferlab.errors import UserError
from transferlab.study.declaration import SCRATCH, Arm, Cell, Declaration
from transferlab.study.roster import with_controls, with_scratch

CELL = Cell("all")


class Composed:
    """Composes arms as a study does, without Hydra's loader."""

    def __init__(self, compose: Callable[..., DictConfig]) -> None:
        self.compose = compose

    def of(self, declaration: Declaration, cell: Cell, arm: Arm, *more: str) -> DictConfig:
        return self.compose(*declaration.shared, *cell.overrides, *arm.overrides, *more)


@pytest.fixture
def roster(compose: Callable[..., DictConfig]) -> Callable[..., list[Arm]]:
    def make(*arms: tuple[str, ...], add: bool = True, controls: bool = True) -> list[Arm]:
        named = tuple(Arm(" ".join(overrides), overrides) for overrides in arms)
        declaration = Declaration((), (CELL,), named, (0, 1), False)
        configs = Composed(compose)
        found = with_scratch(CELL, declaration, configs, add=add)
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
