"""A folder of single runs: no declared family, so no verdicts, but the same tables and curves."""

import json

from transferlab.analysis.arms import Arm, Cell
from transferlab.analysis.load import Study
from transferlab.records import Record

ADVICE = (
    "Verdicts need a declared comparison with tuned, replicated arms: "
    "run `transferlab run experiment=compare target=...`, or any experiment that has a `study`."
)


def cells_of_singles(study: Study) -> list[Cell]:
    """Group single runs by target and size into cells, and within them by what differs."""
    cells: dict[str, dict[str, dict[int, Record]]] = {}
    for run in in_reading_order(study):
        arms = cells.setdefault(_cell_key(run), {})
        name = _free_name(arms, _arm_key(run), int(run["seed"]))
        arms.setdefault(name, {})[int(run["seed"])] = run
    return [
        Cell({"id": key, "values": {}}, tuple(_arm(name, runs) for name, runs in arms.items()))
        for key, arms in sorted(cells.items())
    ]


def in_reading_order(study: Study) -> list[Record]:
    """All runs, those that differ only by seed together."""
    return sorted(
        study.runs.values(),
        key=lambda run: (
            str(run["target"]),
            int(run.get("shots") or 0),
            float(run.get("fraction") or 0),
            str(run["source"]),
            str(run["strategy"]),
            int(run["seed"]),
            str(run["run_id"]),
        ),
    )


def _cell_key(run: Record) -> str:
    return json.dumps([str(run.get(key)) for key in ("target", "shots", "fraction", "backbone")])


def _arm_key(run: Record) -> str:
    name = str(run["strategy"])
    if run["source"] not in (None, "none"):
        name += f" from {run['source']}"
    settings = run.get("settings") or {}
    return name + "".join(f", {key}={value}" for key, value in sorted(settings.items()))


def _free_name(arms: dict[str, dict[int, Record]], name: str, seed: int) -> str:
    """The arm's name, numbered where a run of the same name and seed differs otherwise."""
    free, number = name, 2
    while seed in arms.get(free, {}):
        free, number = f"{name} ({number})", number + 1
    return free


def _arm(name: str, runs: dict[int, Record]) -> Arm:
    first = next(iter(runs.values()))
    declared = {"id": name, "role": "transfer", "runs": []}
    return Arm({**declared, "source": first["source"], "strategy": first["strategy"]}, runs)
