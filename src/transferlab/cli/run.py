"""``transferlab run``: hand the command line to Hydra, and its outcome back as an exit code."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from itertools import pairwise
from pathlib import Path

from transferlab.composing import CONF_FOLDERS, KNOWN, explain, keys, parse
from transferlab.config import TYPED_GROUPS, config_folder, register
from transferlab.errors import RunError, UserError, nearest
from transferlab.outcome import outcome
from transferlab.redaction import redacted
from transferlab.stopping import STOPPABLE, stopping

HELP = """usage: transferlab run [KEY=VALUE ...] [-m] [--dry-run] [--config-dir DIR] [--cfg job]

Make one run; with -m a grid of runs; with experiment=NAME that declares a study, all of it.

  source=glyphs|noise|image_folder|published|checkpoint|none ...     where weights come from
  source=composed source.parts=[glyphs,noise]     several datasets as one; forgetting=true
  target=digits|image_folder|table|parquet|torchvision|hub ...  target.root=DIR  target.shots=N
  strategy=scratch|feature_extraction|fine_tune|layer_decay|gradual_unfreezing|lp_ft|lora ...
  backbone=test_resnet ... or backbone=timm backbone.name=NAME    head=linear|mlp|cosine|knn ...
  budget.steps=N or budget.epochs=N budget.steps=null    batch_size=N    optimizer.lr=X    seed=N
  hydra/launcher=slurm hydra.launcher.partition=P  trainer.num_nodes=N    runs as jobs of a cluster
  trainer.devices=N    trainer.accumulate=N    trainer.precision=bf16-mixed    augmentation=mixup

  -m             sweep comma-separated values: seeds are replicates, sources and strategies arms
  --dry-run      say what would run, how long, and what difference it could show; train nothing
  --find-lr      suggest optimizer.lr for one run from 100 steps at rising rates; train nothing
  --cfg job      print the composed configuration
  --config-dir   a further folder of configuration groups; ./conf is taken by itself
  --debug        show tracebacks
"""


def main(argv: list[str]) -> int:
    """Run ``transferlab run``; returns the exit code."""
    if "-h" in argv or "--help" in argv:
        print(HELP, end="")
        return 0
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come back here, and leave as one line
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of the launcher's worker processes
    outcome.reset()
    if STOPPABLE in os.environ:
        stopping.listen()
    register()
    folders = [config_folder(), *user_folders(argv)]
    overrides = _checked(argv, folders)
    try:
        _compose_and_call(overrides, folders)
    except Exception:
        if outcome.error is not None:  # a sweeper that is not ours stopped for want of a score
            raise outcome.error from None
        raise
    if outcome.error is not None:
        raise outcome.error
    if outcome.failure is not None:
        raise RunError(outcome.failure)
    return 0


def _compose_and_call(overrides: list[str], folders: list[Path]) -> None:
    """Let Hydra compose the configuration and call the job or the sweeper."""
    import hydra

    from transferlab.cluster import cluster
    from transferlab.job import job

    cluster.elsewhere = False

    own = str(folders[0])
    application = hydra.main(version_base="1.3", config_path=own, config_name="run")(job)
    before, here = sys.argv, str(Path.cwd())
    sys.argv = ["transferlab run", *overrides]
    sys.path.append(here)  # classes of the user's own; last, so that they shadow nothing
    try:
        with _shown_redacted(overrides):
            application()
    except (*KNOWN, AssertionError) as error:
        if outcome.started:
            raise  # a fault of ours, not of the command line
        if isinstance(error, AssertionError):  # OmegaConf's, for a key below a node that is null
            raise _below_nothing(overrides) from error
        raise explain(error, known_keys(folders)) from error
    finally:
        sys.argv = before
        sys.path.remove(here)


@contextmanager
def _shown_redacted(overrides: list[str]) -> Iterator[None]:
    """Print what Hydra shows of a configuration without secrets that were read into it."""
    if not any(text.partition("=")[0] in SHOWN for text in overrides):
        yield
        return
    buffer = io.StringIO()
    try:
        with redirect_stdout(buffer):
            yield
    finally:
        print(redacted(buffer.getvalue()), end="")


def _below_nothing(overrides: list[str]) -> UserError:
    deep = [text for text in overrides if text.partition("=")[0].count(".") > 1]
    return UserError(
        f"{', '.join(deep)}: there is no such node under this choice of "
        f"{' or '.join(sorted({text.partition('.')[0] for text in deep}))}. Choose one that has "
        "it, for example source=glyphs for source.pretrain."
    )


def _checked(argv: list[str], folders: list[Path]) -> list[str]:
    """Return Hydra's command line: known flags, and overrides of the form key=value."""
    overrides = [SWITCHES.get(argument, argument) for argument in argv]
    flags = ("-m", "--multirun", "--cfg", "--resolve", "--info", "--config-dir", "-cd", "--package")
    taking_value = ("--cfg", "--info", "--config-dir", "-cd", "--package", "-p")
    plain: list[str] = []
    flagged: list[str] = []
    for index, argument in enumerate(overrides):
        value = index > 0 and overrides[index - 1] in taking_value
        (flagged if value or argument.startswith("-") else plain).append(argument)
        if argument.startswith("-"):
            name = argument.partition("=")[0]
            if name not in (*flags, "-p"):
                raise UserError(f"unknown flag {name} ({nearest(name, [*flags, *SWITCHES])}).")
    _check_values(overrides)
    multirun = "-m" in overrides or "--multirun" in overrides
    for parsed in parse(plain):
        if parsed.is_sweep_override() and not multirun and not _declares(plain):
            raise UserError(
                f"{parsed.input_line}: several values need -m (or quotes, for a text with commas)."
            )
    if len(folders) > 1 and not any(text.startswith("hydra.searchpath") for text in plain):
        paths = ",".join(f"'file://{folder}'" for folder in folders[1:])
        plain.append(f"hydra.searchpath=[{paths}]")
    return [*plain, *flagged]  # argparse takes overrides in one piece only


SWITCHES = {"--dry-run": "dry_run=true", "--find-lr": "find_lr=true"}
"""Flags that are keys of the configuration."""
SHOWN = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}


def _check_values(overrides: list[str]) -> None:
    """Check what Hydra's own parser would refuse in many lines, or not at all."""
    for flag, value in pairwise(overrides):
        if flag in SHOWN and value not in SHOWN[flag]:
            raise UserError(f"{flag} {value}: no such choice ({nearest(value, SHOWN[flag])}).")
    for text in overrides:
        if text.lstrip("+~").startswith("study.") and not _declares(overrides):
            raise UserError(f"{text}: no study is declared. Add experiment=NAME of one that is.")


def _declares(overrides: list[str]) -> bool:
    return any(text.partition("=")[0].lstrip("+") == "experiment" for text in overrides)


def user_folders(argv: list[str]) -> list[Path]:
    """Return ``./conf`` where it is not our own; a file of ours in it would be shadowed, so no.

    Raises:
        UserError: a file of the same name is in both folders.
    """
    if CONF_FOLDERS in os.environ:
        return [Path(folder) for folder in os.environ[CONF_FOLDERS].split(os.pathsep) if folder]
    own, mine = config_folder().resolve(), Path.cwd() / "conf"
    found = [mine] if mine.is_dir() and mine.resolve() != own else []
    for flag in ("--config-dir", "-cd"):
        given = [argv[i + 1] for i, a in enumerate(argv[:-1]) if a == flag]
        given += [a.partition("=")[2] for a in argv if a.startswith(f"{flag}=")]
        for path in given:
            if not Path(path).is_dir():
                raise UserError(f"{flag} {path}: no such folder.")
            _refuse_shadows(Path(path), own)
    for folder in found:
        _refuse_shadows(folder, own)
    return found


def _refuse_shadows(folder: Path, own: Path) -> None:
    for path in sorted(folder.rglob("*.yaml")):
        name = path.relative_to(folder)
        if (own / name).is_file():
            raise UserError(
                f"{path} has the name of transferlab's own {name}, which would win. Rename yours."
            )


def known_keys(folders: list[Path]) -> list[str]:
    """List the keys and groups that exist, from the typed root and the folders."""
    from omegaconf import OmegaConf
    from yaml import YAMLError

    from transferlab.config import RunConfig
    from transferlab.slurm.settings import SlurmSettings

    known = set(keys(OmegaConf.structured(RunConfig)))
    known |= {f"hydra.launcher.{key}" for key in keys(OmegaConf.structured(SlurmSettings))}
    for group, node in TYPED_GROUPS.items():
        known |= {f"{group}.{key}" for key in keys(OmegaConf.structured(node))}
    for folder in folders:
        known |= {str(p.parent.relative_to(folder)) for p in folder.rglob("*.yaml")} - {"."}
        for path in folder.glob("*/*.yaml"):
            if folder != folders[0] and path.parent.name in TYPED_GROUPS:
                continue  # what a user's file adds to them may be the very mistake
            try:
                loaded = OmegaConf.load(path)
            except YAMLError:
                continue  # told where it is used
            if path.parent.name != "experiment" and OmegaConf.is_dict(loaded):
                known |= {f"{path.parent.name}.{key}" for key in keys(loaded)}  # type: ignore[arg-type]
    return sorted(known)
