"""Imports point downward, nothing is imported in a circle, and files stay readable."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
FLOORS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("bedrock", ("errors", "processes", "redaction", "__init__")),
    (
        "ground",
        (
            "records",
            "choices",
            "config",
            "randomness",
            "cache",
            "outcome",
            "environment",
            "collectives",
            "energy",
            "targets",
            "stopping",
            "cluster",
        ),
    ),
    ("who is at work", ("lease",)),
    ("maths", ("stats", "transferability", "representation", "schedule", "curves")),
    ("judgement", ("analysis",)),
    ("settings", ("building", "composing", "machine", "phase_reading")),
    ("sources", ("source_checks", "source_parts")),
    ("checks", ("checks",)),
    (
        "parts",
        (
            "backbones",
            "heads",
            "datasets",
            "augmentations",
            "losses",
            "optim",
            "many_rates",
            "trackers",
            "checkpoints",
            "fingerprint",
            "feature_cache",
        ),
    ),
    ("parts of a model", ("parts",)),
    ("what is timed", ("precision",)),
    ("assembly", ("model", "phase_plan", "split_data", "datamodule", "evaluation")),
    ("assembled", ("assembling", "refitting", "layer_taps", "forward_graph")),
    ("a model in two", ("frozen_part",)),
    ("one pass", ("frozen_pass",)),
    ("what is computed once", ("reuse",)),
    ("what may be claimed", ("further_tests", "integrity", "provenance")),
    ("policy", ("callbacks", "planning", "baselines")),
    ("learning", ("module", "trainers")),
    ("one fit", ("fitting",)),
    ("steps of many", ("probe_loop",)),
    ("many in one fit", ("probes",)),
    ("a run's fits", ("auto_depth",)),
    ("what it forgot", ("forgetting",)),
    ("its record", ("run_record", "run_columns", "launching", "phase_table", "room")),
    ("one run", ("run", "prediction", "rate_finder", "memory")),
    ("several runs", ("run_together",)),
    ("one rank", ("rank",)),
    ("before training", ("scouting",)),
    ("study", ("study",)),
    ("jobs of a cluster", ("slurm",)),
    ("job", ("job", "hydra_plugins", "recommending")),
    ("doors", ("cli",)),
    ("the program", ("__main__",)),
)
"""The floors of docs/architecture.md, the lowest first, and the rooms on each."""
FLOOR = {room: height for height, (_, rooms) in enumerate(FLOORS) for room in rooms}
PURE = ("stats", "transferability", "representation", "analysis")
HEAVY = ("torch", "lightning", "hydra", "timm", "torchvision", "omegaconf")
FILE_LINES, FUNCTION_LINES = 300, 60


def modules() -> dict[str, Path]:
    """Dotted name of every module, packages under their own name."""
    found = {}
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def room(module: str) -> str:
    """The part of the house a module lies in: the first name below ``transferlab``."""
    top, *rest = module.split(".")
    return top if top != "transferlab" else (rest or ["__init__"])[0]


def imports(path: Path) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import statement of a file, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node


def imported(path: Path) -> set[str]:
    """Our own modules that a file imports."""
    names = set()
    for node in imports(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                names.add(whole if whole in MODULES else node.module)
    return {name for name in names if name.split(".")[0] in ("transferlab", "hydra_plugins")}


def test_every_room_has_a_floor() -> None:
    rooms = {room(module) for module in MODULES}
    assert rooms == set(FLOOR), "give it a floor in FLOORS and a line in docs/architecture.md"


def test_imports_name_modules_that_exist() -> None:
    strange = {
        f"{name} imports {other}"
        for name, path in MODULES.items()
        for other in imported(path)
        if other not in MODULES
    }
    assert not strange


def test_imports_point_downward() -> None:
    upward = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        for other in imported(path)
        if room(other) != room(name) and FLOOR[room(other)] >= FLOOR[room(name)]
    ]
    assert not upward, "move the shared code down a floor:\n" + "\n".join(sorted(upward))


def test_no_import_cycles() -> None:
    graph = {name: imported(path) - {name} for name, path in MODULES.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_no_relative_imports() -> None:
    relative = [
        str(path.relative_to(SRC))
        for path in MODULES.values()
        for node in imports(path)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


def test_pure_rooms_name_nothing_heavy() -> None:
    heavy = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        if room(name) in PURE
        for node in imports(path)
        for other in _packages(node) & set(HEAVY)
    ]
    assert not heavy


def _packages(node: ast.Import | ast.ImportFrom) -> set[str]:
    names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    return {name.split(".")[0] for name in names}


def _loaded(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter holds after some code."""
    code += f"\nimport sys; print('loaded:', *({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("loaded:")[2].split())


def test_judging_loads_nothing_heavy() -> None:
    names = [name for name in MODULES if room(name) in PURE]
    assert _loaded("\n".join(f"import {name}" for name in names)) == set()


@pytest.mark.parametrize(
    "command", [[], ["run"], ["recommend"], ["report"], ["status"], ["predict"], ["fetch"]]
)
def test_help_loads_no_torch(command: list[str]) -> None:
    code = f"from transferlab.cli import main\nassert main({[*command, '--help']!r}) == 0"
    assert not _loaded(code) & {"torch", "lightning", "timm", "torchvision"}


def test_files_and_functions_stay_short() -> None:
    long = []
    for name, path in MODULES.items():
        text = path.read_text()
        if len(text.splitlines()) > FILE_LINES:
            long.append(f"{name}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long.append(f"{name}.{node.name}: {lines} lines")
    assert not long, f"over {FILE_LINES} lines a file or {FUNCTION_LINES} a function"
