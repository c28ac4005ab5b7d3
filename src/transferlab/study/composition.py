"""Composed configurations of a study's arms."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from transferlab.building import build
from transferlab.callbacks.base import StrategyCallback
from transferlab.checks import check
from transferlab.composing import KNOWN, explain, keys
from transferlab.errors import UserError
from transferlab.source_parts import expand_parts
from transferlab.study.declaration import Arm, Cell, Declaration

__all__ = ["ArmConfigs", "Launcher", "is_frozen"]


class ArmConfigs:
    """Compose and check the configuration of every arm of every cell, each once.

    Args:
        loader: Hydra's.
        master: the configuration that the command line alone gives.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader, self._master = loader, master
        self._known: dict[tuple[str, ...], DictConfig] = {}

    def of(self, declaration: Declaration, cell: Cell, arm: Arm, *more: str) -> DictConfig:
        """Return the checked configuration of an arm in a cell.

        Raises:
            UserError: the overrides do not compose, or compose to something invalid.
        """
        overrides = (*declaration.shared, *cell.overrides, *arm.overrides, *more)
        if overrides not in self._known:
            self._known[overrides] = self._compose(overrides)
        return self._known[overrides].copy()

    def _compose(self, overrides: Iterable[str]) -> DictConfig:
        try:
            cfg = self._loader.load_sweep_config(self._master, list(overrides))
        except KNOWN as error:
            raise explain(error, keys(self._master)) from error
        expand_parts(cfg, self._loader, self._master.hydra.overrides.hydra)
        with open_dict(cfg):
            del cfg["hydra"]
            cfg.study, cfg.retry = None, None
            if cfg.source.kind == "none" or cfg.strategy.init == "random":
                cfg.forgetting = False  # of scratch and controls, which have nothing to forget
        check(cfg)
        return cfg


def is_frozen(cfg: DictConfig) -> bool:
    """Say whether a strategy never trains any of the backbone."""
    callbacks: list[Any] = [build(node) for node in cfg.strategy.callbacks.values()]
    return any(isinstance(c, StrategyCallback) and not c.trains_backbone() for c in callbacks)


def point(cfg: DictConfig, seed: int, purpose: str, settings: dict[str, Any]) -> DictConfig:
    """Return an arm's configuration for one seed and one set of tuned settings."""
    cfg = cfg.copy()
    for key, value in settings.items():
        try:
            OmegaConf.update(cfg, key, value, force_add=False)
        except KNOWN as error:
            raise explain(error, keys(cfg)) from error
    cfg.seed, cfg.purpose, cfg.settings = seed, purpose, settings
    return cfg


def require_folder(path: Path) -> Path:
    """Return the absolute path of a study's folder."""
    if not str(path):
        raise UserError("output_dir is empty: set it to a folder.")
    return path.absolute()
