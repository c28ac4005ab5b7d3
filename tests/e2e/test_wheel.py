"""The wheel, alone: what is inside, and that it runs from an empty folder."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from transferlab.config import config_folder

REPOSITORY = Path(__file__).parents[2]
CONF = REPOSITORY / "conf"
TINY = (
    "target=digits", "target.shots=5", "target.max_validation=20", "budget.steps=20",
    "optimizer.lr=1e-2", "trainer=cpu", "trainer.threads=1",
)  # fmt: skip

CLEAN = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with what is installed; no network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(REPOSITORY)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel; its dependencies come from the one that tests run in.

    A ``.pth`` file adds that one's packages after the wheel's own, but not its ``.pth`` files, so
    the editable clone is not among them.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (own,) = folder.glob("lib/python3*/site-packages")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*pip, str(own), str(wheel)], check=True, capture_output=True)
    others = [path for path in sys.path if path.endswith("site-packages")]
    (own / "dependencies.pth").write_text("\n".join(others) + "\n")
    return folder / "bin" / "python"


def transferlab(python: Path, where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a folder."""
    code = "import sys; from transferlab.cli import main; sys.exit(main())"
    environment = CLEAN | {"TRANSFERLAB_CACHE": str(where.parent / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(python), "-c", code, *arguments],
        cwd=where, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_an_editable_install_reads_the_configuration_of_the_clone() -> None:
    assert config_folder() == CONF


@pytest.mark.slow
@pytest.mark.xdist_group("wheel")
def test_the_wheel_holds_configuration_report_and_sweeper(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"transferlab/conf/{path.relative_to(CONF)}" for path in CONF.rglob("*.yaml")}
    wanted |= {
        "transferlab/analysis/report.html.j2",
        "transferlab/py.typed",
        "hydra_plugins/transferlab_study/sweeper.py",
    }
    assert wanted <= names
    assert "hydra_plugins/__init__.py" not in names, "it would hide the plugins of other packages"
    assert not [name for name in names if name.startswith(("tests", "src", "experiments"))]


@pytest.mark.slow
@pytest.mark.xdist_group("wheel")
def test_the_wheel_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    where = tmp_path / "empty"
    where.mkdir()
    code = "import transferlab.config as c; print(c.__file__, c.config_folder())"
    command = [str(installed), "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, cwd=where, env=CLEAN)
    assert str(REPOSITORY) not in found.stdout, "the clone was found instead of the wheel"
    done = transferlab(installed, where, "run", *TINY)
    assert done.returncode == 0, done.stderr
    (record,) = where.glob("outputs/*/runs/*/run.json")
    assert json.loads(record.read_text())["strategy"] == "scratch"  # no source


@pytest.mark.slow
@pytest.mark.xdist_group("wheel")
def test_a_yaml_in_the_working_folder_is_found(installed: Path, tmp_path: Path) -> None:
    where = tmp_path / "mine"
    (where / "conf" / "strategy").mkdir(parents=True)
    (where / "conf" / "strategy" / "mine.yaml").write_text(
        "name: mine\n"
        "init: source\n"
        "callbacks:\n"
        "  decay:\n"
        "    _target_: transferlab.callbacks.layerwise_lr_decay.LayerwiseLRDecay\n"
        "    decay: 0.5\n"
    )
    done = transferlab(installed, where, "run", *TINY, "strategy=mine")
    assert done.returncode == 0, done.stderr
    (record,) = where.glob("outputs/*/runs/*/run.json")
    assert json.loads(record.read_text())["strategy"] == "mine"


@pytest.mark.slow
@pytest.mark.xdist_group("wheel")
def test_the_wheel_runs_a_study_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    where = tmp_path / "study"
    where.mkdir()
    study = ("experiment=digits", "study.seeds=2", "study.looks=[2]", "study.tune=null",
             "budget.steps=10", "target.max_validation=20",
             "study.arms.source=[glyphs]", "study.arms.strategy=[fine_tune]")  # fmt: skip
    done = transferlab(installed, where, "run", *study)
    assert done.returncode == 0, done.stderr
    verdicts = json.loads((where / "outputs" / "digits" / "verdicts.json").read_text())["verdicts"]
    assert [verdict["strategy"] for verdict in verdicts] == ["fine_tune"]
    assert (where / "outputs" / "digits" / "report.html").stat().st_size > 10_000
