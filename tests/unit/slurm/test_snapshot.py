"""A snapshot holds what jobs import, and is another one when any of it was edited."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from transferlab.slurm.snapshot import snapshot


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with modules of the user's, imported."""
    names = ("mine_alone", "mine_pack", "mine_pack.used")
    (tmp_path / "mine_pack").mkdir()
    for path in ("mine_alone.py", "mine_pack/__init__.py", "mine_pack/used.py",
                 "mine_pack/later.py", "stranger.py"):  # fmt: skip
        (tmp_path / path).write_text(f"WHERE = {path!r}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in names:
        importlib.import_module(name)
    yield tmp_path
    for name in names:
        del sys.modules[name]


def test_jobs_import_the_snapshot_whatever_is_edited_afterwards(place: Path) -> None:
    first = snapshot(place / "outputs")
    assert snapshot(place / "outputs") == first
    there = {str(p.relative_to(first)) for p in first.rglob("*") if p.is_file()}
    assert {"mine_alone.py", "mine_pack/__init__.py", "mine_pack/used.py", "mine_pack/later.py",
            "transferlab/run.py", "transferlab/conf/run.yaml", "transferlab/analysis/page.html.j2",
            "hydra_plugins/transferlab_slurm/launcher.py"} <= there  # fmt: skip
    assert "stranger.py" not in there
    (place / "mine_pack" / "used.py").write_text("WHERE = 'edited'\n")
    assert snapshot(place / "outputs") != first
    code = (
        "import transferlab, mine_pack.used\n"
        "from transferlab.config import config_folder\n"
        "print(transferlab.__file__, config_folder(), mine_pack.used.WHERE)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(first), "PYTHONSAFEPATH": "1"},
    ).stdout.split()  # fmt: skip
    assert said == [
        str(first / "transferlab/__init__.py"), str(first / "transferlab/conf"), "mine_pack/used.py"
    ]  # fmt: skip
    assert not list((place / "outputs" / "code").glob(".*")), "nothing half made is left"
