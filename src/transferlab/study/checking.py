"""What can be wrong with a study's declaration, found before anything of it runs."""

from collections.abc import Sequence

from omegaconf import DictConfig

from transferlab.checks import check, check_values
from transferlab.errors import UserError
from transferlab.study.composition import point
from transferlab.study.declaration import TUNING_SEED
from transferlab.study.tuning import Settings


def check_study(cfg: DictConfig) -> None:
    """Check seeds, margins, looks and the tuning grid's form; a plain grid has none.

    Raises:
        UserError: names the key and what it may be.
    """
    study = cfg.study
    if study is None:
        return
    check_values(cfg)
    looks = list(study.looks)
    if looks and (looks != sorted(set(looks)) or looks[0] < 2 or looks[-1] != study.seeds):
        raise UserError(
            f"study.looks={looks} with study.seeds={study.seeds}: expected growing numbers of "
            f"seeds from 2 that end at {study.seeds}."
        )
    if study.tune is not None and study.tune.per == "replicate" and study.tune.seeds is not None:
        raise UserError(
            f"study.tune.seeds={study.tune.seeds} with study.tune.per=replicate: each replicate "
            "is tuned on its own seed. Set study.tune.seeds=null."
        )
    _check_own_best(cfg)
    for key, values in (study.tune.grid if study.tune is not None else {}).items():
        if not values:
            raise UserError(f"study.tune.grid.{key} is an empty list: give at least one value.")


def _check_own_best(cfg: DictConfig) -> None:
    """Own best budgets are chosen by tuning, among at least two numbers of steps."""
    budgets = list(cfg.study.own_best)
    if not budgets:
        return
    if cfg.study.tune is None or not cfg.study.tune.grid:
        raise UserError(
            f"study.own_best={budgets}: a budget is chosen by tuning, and this study has no "
            "study.tune.grid. Give one, such as {optimizer.lr: [1e-3, 1e-2]}."
        )
    if cfg.budget.steps is None or len(set(budgets)) < 2 or min(budgets) < 1:
        raise UserError(
            f"study.own_best={budgets} with budget.steps={cfg.budget.steps}: expected at least two "
            "different numbers of steps of 1 or more, beside a budget in steps."
        )


def check_forgetting(cfg: DictConfig, arms: Sequence[DictConfig]) -> None:
    """Refuse to measure forgetting where no arm has a source; scratch and controls have none.

    Raises:
        UserError: none of the arms would measure it.
    """
    if cfg.forgetting and not any(arm.forgetting for arm in arms):
        raise UserError(
            "forgetting=true: all arms start from random weights and have no source to forget. "
            "Add an arm with a source such as source=glyphs, or leave forgetting out."
        )


def check_grid(configs: Sequence[DictConfig], points: Sequence[Settings]) -> None:
    """Check that every arm takes the grid's keys, and one arm each of its points."""
    for number, cfg in enumerate(configs):
        for settings in points if number == 0 else points[:1]:
            check(point(cfg, TUNING_SEED, "tune", dict(settings)))
