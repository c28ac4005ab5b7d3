"""Who is compared with whom: scratch in every cell, a control for every frozen strategy."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from transferlab.composing import keys
from transferlab.errors import UserError, nearest
from transferlab.source_parts import part_names
from transferlab.study.composition import ArmConfigs, is_frozen
from transferlab.study.declaration import SCRATCH, Arm, Cell, Declaration, override

COMPARABLE = ("head", "optimizer", "scheduler", "augmentation", "loss", "batch_size", "budget")
"""What scratch and the arms compared with it share."""


Exclusion = Mapping[str, Any]
MISSING = object()


class Excluded:
    """Arms that cells go without: a source that holds the target's own images, say.

    Args:
        rules: ``study.exclude``, each a mapping of keys to values. An arm is left out of a cell
            where its configuration has all values of a rule.
    """

    def __init__(self, rules: Sequence[Exclusion]) -> None:
        self._rules, self._met = list(rules), [False] * len(rules)
        for rule in rules:
            if not isinstance(rule, Mapping) or not rule:
                raise UserError(
                    f"study.exclude holds {rule!r}: expected keys and values, such as "
                    "{target.root: DIR, source.root: DIR}."
                )

    def admitted(self, cell: Cell, declaration: Declaration, configs: ArmConfigs) -> Declaration:
        """Return the declaration with the arms that the cell keeps.

        Raises:
            UserError: no arm is left, or a rule names an unknown key.
        """
        if not self._rules:
            return declaration
        kept = []
        for arm in declaration.arms:
            cfg = configs.of(declaration, cell, arm)
            fit = [_fits(cfg, rule) for rule in self._rules]
            self._met = [before or now for before, now in zip(self._met, fit, strict=True)]
            if not any(fit):
                kept.append(arm)
        if not kept:
            raise UserError(f"study.exclude leaves no arm in the cell {cell.id}: exclude fewer.")
        return replace(declaration, arms=tuple(kept))

    def require_used(self) -> None:
        """Refuse a rule that no arm of any cell meets.

        Raises:
            UserError: names it.
        """
        for rule, met in zip(self._rules, self._met, strict=True):
            if not met:
                told = ", ".join(f"{key}: {value}" for key, value in rule.items())
                raise UserError(
                    f"study.exclude: no arm of any cell has {{{told}}}. Correct it, or remove it."
                )


def _fits(cfg: DictConfig, rule: Exclusion) -> bool:
    for key, value in rule.items():
        if OmegaConf.select(cfg, key, throw_on_missing=False, default=MISSING) is MISSING:
            raise UserError(f"study.exclude: unknown key {key!r} ({nearest(key, keys(cfg))}).")
        if OmegaConf.select(cfg, key, throw_on_missing=False) != value:
            return False
    return True


def with_scratch(
    cell: Cell, declaration: Declaration, configs: ArmConfigs, *, add: bool
) -> list[Arm]:
    """Mark the arms that are scratch, whatever their name; add one where there is none.

    An arm whose weights are random and which freezes nothing is scratch; several such arms that
    differ in nothing else are one.

    Args:
        cell: whose arms these are.
        declaration: of the study.
        configs: composes the arms.
        add: whether a missing scratch arm is added.

    Returns:
        the arms, scratch first where there is one.

    Raises:
        UserError: two scratch arms that differ in what scratch and the others share.
    """
    found: list[Arm] = []
    scratch, settings = None, None
    for arm in declaration.arms:
        cfg = configs.of(declaration, cell, arm)
        random = cfg.strategy.init == "random" or cfg.source.kind == "none"
        if random and not cfg.strategy.callbacks:
            own = {key: cfg[key] for key in COMPARABLE}
            if scratch is None:
                scratch, settings = replace(arm, id="scratch", role="scratch"), own
            elif own != settings:
                raise UserError(
                    f"arms {scratch.id!r} and {arm.id!r} both train from scratch, but with "
                    "different settings: no arm could say which one it is compared with. Put "
                    "what differs (head, optimizer, ...) into study.cells."
                )
        elif random:
            found.append(replace(arm, role="control"))
        else:
            found.append(arm)
    if scratch is None and add:
        scratch = Arm("scratch", SCRATCH, role="scratch")
    return [scratch, *found] if scratch is not None else found


def with_parts_left_out(
    arms: Sequence[Arm], cell: Cell, declaration: Declaration, configs: ArmConfigs
) -> list[Arm]:
    """Add every arm from a composed source again, without each of its parts: what is a part worth?

    The source runs without a part take as many steps as the whole one.

    Raises:
        UserError: no arm has a composed source.
    """
    without: list[Arm] = []
    for arm in arms:
        cfg = configs.of(declaration, cell, arm)
        if arm.role != "transfer" or cfg.source.leave_out is not None:
            continue
        for part in part_names(cfg):
            overrides = (*arm.overrides, override("source.leave_out", part))
            name = f"{arm.id} without {part}"
            without.append(Arm(name, overrides, role="ablation", of=arm.id, without=part))
    if not without:
        raise UserError(
            "study.leave_one_out=true: no arm has a composed source whose parts could be left out. "
            "Give one, such as source=composed source.parts=[glyphs,noise]."
        )
    return [*arms, *without]


def with_controls(
    arms: Sequence[Arm], cell: Cell, declaration: Declaration, configs: ArmConfigs
) -> list[Arm]:
    """Give every frozen strategy a frozen random-init arm: is the source bad, or the freezing?"""
    controls: dict[tuple[str, ...], Arm] = {}
    found = []
    for arm in arms:
        if arm.role != "transfer":
            found.append(arm)
            continue
        cfg = configs.of(declaration, cell, arm)
        if not cfg.strategy.callbacks:
            arm = replace(arm, control="scratch")  # the same layers from random weights
        if is_frozen(cfg):
            kept = tuple(o for o in arm.overrides if o.partition("=")[0].split(".")[0] != "source")
            overrides = ("source=none", *kept)
            control = controls.setdefault(
                overrides,
                Arm(f"{_strategy(arm, kept)} from random init", overrides, role="control"),
            )
            arm = replace(arm, control=control.id)
        found.append(arm)
    return [*found, *controls.values()]


def _strategy(arm: Arm, kept: tuple[str, ...]) -> str:
    named = [o.partition("=")[2] for o in kept if o.startswith("strategy=")]
    return named[0] if named else arm.id
