"""A copy of the code that jobs run with: what is edited afterwards reaches none of them."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import transferlab
from transferlab.config import config_folder
from transferlab.environment import SNAPSHOT_COMMIT, commit
from transferlab.records import sha256_file, sha256_record

FOLDER = "code"


def snapshot(output: Path) -> Path:
    """Copy the code into ``<output>/code/<hash>`` unless it lies there, and return that folder.

    In it are transferlab and its plugins, its configuration groups, and the user's own modules:
    those below the working directory that were imported while the runs were checked, packages
    whole, ``.py`` files alone.
    """
    files = dict(_files())
    name = sha256_record({str(path): sha256_file(source) for path, source in files.items()})[:16]
    folder = output.absolute() / FOLDER / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}.") as made:
        whole = Path(made) / "whole"
        for path, source in files.items():
            (whole / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, whole / path)
        (whole / SNAPSHOT_COMMIT).write_text(commit() or "")
        try:
            whole.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process has just made it
                raise
    return folder


def _files() -> Iterator[tuple[Path, Path]]:
    """Yield where a file goes and where it comes from."""
    package = Path(transferlab.__file__).parent
    for path in package.rglob("*"):
        if path.is_file() and path.suffix in (".py", ".json", ".html", ".j2", ".css", ".js"):
            yield path.relative_to(package.parent), path
    for path in (package.parent / "hydra_plugins").glob("transferlab_*/*.py"):
        yield path.relative_to(package.parent), path
    for path in config_folder().rglob("*.yaml"):
        yield Path("transferlab", "conf", path.relative_to(config_folder())), path
    yield from _own_modules()


def _own_modules() -> Iterator[tuple[Path, Path]]:
    """Yield the user's modules, and of a package all that could still be imported."""
    here = Path.cwd().resolve()
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is None or name.partition(".")[0] in ("transferlab", "hydra_plugins"):
            continue
        path = Path(file).resolve()
        if not path.is_relative_to(here) or "site-packages" in path.parts or path.suffix != ".py":
            continue
        parts = name.split(".") + (["__init__"] if path.name == "__init__.py" else [])
        if parts[-1] != path.stem or len(path.parts) <= len(parts):
            continue  # loaded under another name, as a script is
        root = path.parents[len(parts) - 1]
        beside = path.parent.rglob("*.py") if len(parts) > 1 else [path]
        for part in beside:
            yield part.relative_to(root), part
