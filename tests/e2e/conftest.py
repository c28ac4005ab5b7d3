"""Commands as people type them, each in an empty working directory with a cache of the tests."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from transferlab import planning, split_data
from transferlab.cli.main import main

PROGRAM = Path(sys.executable).parent / "transferlab"

LINE = (
    "trainer=cpu", "trainer.threads=1", "trainer.validations=1", "backbone.image_size=16",
    "budget.steps=12", "batch_size=8", "optimizer.lr=1e-2", "target.max_validation=40",
    "trainer.precision=32-true",
)  # fmt: skip
"""Overrides that make a run take a fraction of a second, still learn something, and leave nothing
to how fast the machine is."""

GLYPHS = (
    "source.dataset.per_class=12", "source.pretrain.budget.steps=4",
    "source.pretrain.batch_size=16",
)  # fmt: skip
"""Overrides that make a source run of glyphs as short; for arms from glyphs alone."""


@dataclass(frozen=True)
class Result:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of stderr."""
        return self.err.strip().splitlines()


Cli = Callable[..., Result]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def cli(place: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Run a command line in this process: ``cli("run", "seed=1").code``."""

    def call(*arguments: str | Path) -> Result:
        split_data._open.cache_clear()  # what a process remembers of relative paths
        planning._external.cache_clear()
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return Result(code, *capfd.readouterr())

    yield call
    GlobalHydra.instance().clear()


@pytest.fixture
def program(place: Path) -> Cli:
    """Run a command line in a process of its own."""

    def call(*arguments: str | Path) -> Result:
        made = subprocess.run(
            [PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        return Result(made.returncode, made.stdout, made.stderr)

    return call


@pytest.fixture(scope="session")
def overrides() -> Callable[..., tuple[str, ...]]:
    """Return the overrides of a quick run, with those of a quick source run where asked."""

    def make(*more: str, glyphs: bool = False) -> tuple[str, ...]:
        return (*LINE, *(GLYPHS if glyphs else ()), *more)

    return make


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Callable[..., Path]:
    """Make a study for all tests of a module: ``made_once(declare, "tiny")`` returns its folder.

    ``declare`` writes the experiment of that name into the working directory that it is given.
    """

    def make(declare: Callable[[Path], None], name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("TRANSFERLAB_CACHE", str(shared_cache))
            declare(folder)
            assert main(["run", f"experiment={name}"]) == 0
        return folder / "outputs" / name

    return make


Draw = Callable[..., list[Path]]


@pytest.fixture(scope="session")
def draw_classes() -> Draw:
    """Write a folder of classes: ``draw_classes(root, classes=("ant", "bee"), each=12)``.

    A class is told by its brightness; no two images are the same.
    """

    def make(root: Path, classes: Sequence[str] = ("ant", "bee"), each: int = 12) -> list[Path]:
        rng = np.random.default_rng(len(classes))
        files = []
        for index, name in enumerate(classes):
            (root / name).mkdir(parents=True, exist_ok=True)
            for number in range(each):
                low = 200 * index // max(len(classes) - 1, 1)
                pixels = rng.integers(low, low + 56, (16, 16), dtype=np.uint8)
                files.append(root / name / f"{number}.png")
                Image.fromarray(pixels).save(files[-1])
        return files

    return make


@pytest.fixture(scope="session")
def read_run() -> Callable[[Path], dict[str, Any]]:
    """Return the record of the only run in a folder."""

    def read(folder: Path) -> dict[str, Any]:
        (path,) = (folder / "runs").glob("*/run.json")
        record: dict[str, Any] = json.loads(path.read_text())
        return record

    return read
