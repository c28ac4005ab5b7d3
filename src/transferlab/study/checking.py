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
    for key, values in (study.tune.grid if study.tune is not None else {}).items():
        if not values:
            raise UserError(f"study.tune.grid.{key} is an empty list: give at least one value.")


def check_grid(configs: Sequence[DictConfig], points: Sequence[Settings]) -> None:
    """Check that every arm takes the grid's keys, and one arm each of its points."""
    for number, cfg in enumerate(configs):
        for settings in points if number == 0 else points[:1]:
            check(point(cfg, TUNING_SEED, "tune", dict(settings)))
