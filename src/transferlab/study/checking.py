"""What can be wrong with a study's declaration, found before anything of it runs."""

from collections.abc import Sequence

from omegaconf import DictConfig

from transferlab.building import build
from transferlab.callbacks.auto_depth import AutoDepth
from transferlab.checks import check, check_values
from transferlab.errors import UserError
from transferlab.study.asking import require_optuna
from transferlab.study.composition import point
from transferlab.study.declaration import TUNING_SEED, plain
from transferlab.study.space import read_space
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
    if study.tune is not None:
        _check_search(cfg)
    _check_own_best(cfg)
    grid = study.tune.grid if study.tune is not None else None
    for key, values in (grid or {}).items():
        if not values:
            raise UserError(f"study.tune.grid.{key} is an empty list: give at least one value.")


def _check_search(cfg: DictConfig) -> None:
    """A search is declared beside no grid, and what belongs to one of the two is set for it."""
    tune = cfg.study.tune
    if not tune.search:
        for key in ("trials", "batch", "sampler", "prune"):
            if tune[key] is not None:
                raise UserError(
                    f"study.tune.{key}={tune[key]} belongs to study.tune.search, and this study "
                    f"has none. Leave out study.tune.{key}, or declare what to search."
                )
        return
    if tune.grid:
        raise UserError("study.tune has a grid and a search: give one of the two.")
    of_a_grid = {
        "tune.extend": (tune.extend, tune.extend is not None),
        "tune.per": (tune.per, tune.per == "replicate"),
        "own_best": (list(cfg.study.own_best), bool(cfg.study.own_best)),
    }
    for key, (value, given) in of_a_grid.items():
        if given:
            raise UserError(
                f"study.{key}={value} goes with study.tune.grid, not with a search. "
                f"Leave out study.{key}, or give a grid."
            )
    _check_space(tune)


def _check_space(tune: DictConfig) -> None:
    for key in read_space(plain(tune.search)):
        if key.partition(".")[0] in ("budget", "seed"):
            raise UserError(
                f"study.tune.search.{key}: arms are compared at equal steps and seeds. "
                "Search something else."
            )
    require_optuna()


def check_pruning(configs: Sequence[DictConfig]) -> None:
    """Refuse to prune runs that validate once, or that make several fits."""
    for cfg in configs:
        if cfg.trainer.validations < 2:
            raise UserError(
                f"study.tune.prune=median with trainer.validations={cfg.trainer.validations}: a "
                "run is compared at a validation before its last. Set trainer.validations=5."
            )
        if any(isinstance(build(node), AutoDepth) for node in cfg.strategy.callbacks.values()):
            raise UserError(
                f"study.tune.prune=median with strategy={cfg.strategy.name}: it makes several fits "
                "a run, which have no common curve. Set study.tune.prune=null."
            )


def check_pruned_by(own: str, metric: str) -> None:
    """Refuse to stop runs by another score than the one that chooses among them."""
    if own != metric:
        raise UserError(
            f"study.tune.prune=median stops runs by {own}, and this study chooses by {metric}. "
            f"Set study.tune.prune=null, or study.verdict.metric={own}."
        )


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
