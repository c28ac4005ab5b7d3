"""What all tests share: a cache of their own, and configurations as the command line makes them."""

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from transferlab.config import config_folder, register
from transferlab.planning import Plan, plan_run
from transferlab.source_parts import expand_parts

Compose = Callable[..., DictConfig]
MakePlan = Callable[..., Plan]

QUICK = (
    "trainer=cpu", "trainer.threads=1", "trainer.validations=1", "trainer.log_every=1",
    "budget.steps=3", "batch_size=8", "target.shots=5", "target.max_validation=20",
    "trainer.precision=32-true",
)  # fmt: skip
"""Overrides of a run that takes a fraction of a second, and the same on all machines."""


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache that tests share: data are decoded and sources pretrained once a session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test away from the user's cache."""
    monkeypatch.setenv("TRANSFERLAB_CACHE", str(shared_cache))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TRANSFERLAB_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def compose() -> Compose:
    """Compose a configuration from overrides, as ``transferlab run`` hands it to its job.

    A composition costs a tenth of a second, so equal ones are made once and copied.
    """

    @lru_cache(maxsize=256)
    def composed(overrides: tuple[str, ...]) -> DictConfig:
        register()
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            cfg = hydra_compose("run", overrides=list(overrides))
            expand_parts(cfg, GlobalHydra.instance().config_loader())
        with open_dict(cfg):
            cfg.study = None
        OmegaConf.set_struct(cfg, False)
        return cfg

    def make(*overrides: str) -> DictConfig:
        return composed(overrides).copy()

    return make


@pytest.fixture
def make_plan(compose: Compose, tmp_path: Path) -> MakePlan:
    """Plan a quick run into the test's own folder: ``make_plan("strategy=scratch", "seed=1")``."""

    def make(*overrides: str, folder: Path | None = None) -> Plan:
        cfg = compose(*QUICK, *overrides)
        cfg.output_dir = str(folder or tmp_path / "outputs")
        return plan_run(cfg)

    return make


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount small file systems: ``mounted("disk", "size=2m")``; skipped where that is forbidden."""
    folders: list[Path] = []

    def mount(name: str, options: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        if os.geteuid() != 0:
            pytest.skip("only root may mount a small disk")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no mount of a small disk here: {done.stderr.strip()}")
        folders.append(folder)
        return folder

    yield mount
    for folder in reversed(folders):
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_disk(mounted: Callable[..., Path]) -> Path:
    """A disk of 2 MB."""
    return mounted("disk", "size=2m")


NEEDED = ("chromium", "gloo", "slurm", "mlflow", "optuna is missing")
"""What the machine that decides must have: a test that would skip for want of it fails there."""


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Turn a skip that names one of ``NEEDED`` into a failure where TRANSFERLAB_CI is set."""
    report = (yield).get_result()
    if report.skipped and os.environ.get("TRANSFERLAB_CI") and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[-1])
        if any(name in reason.lower() for name in NEEDED):
            report.outcome, report.longrepr = "failed", f"{item.nodeid}: TRANSFERLAB_CI: {reason}"
