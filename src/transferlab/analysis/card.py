"""Cards: what weights, or a study's verdicts, rest on; made from records alone.

A card can be made again from the same records and is the same to the byte. Its last field is the
SHA-256 of the rest, so one changed byte of the data behind it shows.
"""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from transferlab.analysis.arms import Arm, Cell
from transferlab.analysis.card_words import run_text, study_text
from transferlab.analysis.load import Study
from transferlab.records import FORMAT, Record, sha256_record, write_json, write_text

UNKNOWN = "unknown"
"""Where a record does not say: never an empty field."""
VERDICT_FIELDS = (
    "question", "cell", "arm", "against", "part", "source", "target", "strategy", "backbone",
    "metric", "verdict",
    "reason", "sentence", "scope", "rho", "delta", "ci95", "n_pairs", "n_items", "flags",
    "card_hash",
)  # fmt: skip


def run_card(record: Record) -> Record:
    """Return the card of one run's weights, from its run.json."""
    environment, cost = record.get("environment") or {}, record.get("cost") or {}
    card = {
        "format": FORMAT,
        "kind": "run",
        "name": record["run_id"],
        "status": record["status"],
        "weights": record.get("weights"),
        "backbone": {"name": record.get("backbone"), "licence": _licence(record, "backbone")},
        "target": target_facts(record) | {"composition": _composition(record, "target")},
        "source": source_facts(record) | {"composition": _composition(record, "source")},
        "transforms_sha256": _known(record, "transforms_sha256"),
        "subset_sha256": _known(record, "train_ids_sha256"),
        "label_map": _label_map(record),
        "training": {
            "strategy": record["strategy"],
            "head": record.get("head"),
            "init": record.get("init"),
            "settings": record.get("settings") or {},
            "lr": record.get("lr"),
            "steps": record.get("budget_steps"),
            "batch_size": record.get("batch_size"),
            "seed": record["seed"],
            "trials_in_run": int(record.get("n_trials") or 1),
            "identity": record.get("identity") or {},
        },
        "metrics": record.get("metrics") or {},
        "near_duplicates": record.get("near_duplicates"),
        "commit": environment.get("commit") or UNKNOWN,
        "hardware": environment.get("hardware") or UNKNOWN,
        "versions": {k: v for k, v in sorted(environment.items()) if k not in _PLACES},
        "energy": energy_of([cost]),
    }
    return _sealed(card)


def study_card(study: Study, cells: Sequence[Cell], verdicts: Sequence[Record]) -> Record:
    """Return the card of a study's verdicts.

    Args:
        study: its records.
        cells: its families.
        verdicts: as in verdicts.json, of every kind.
    """
    runs = [run for _, run in sorted(study.runs.items())]
    environments = [run.get("environment") or {} for run in runs]
    card = {
        "format": FORMAT,
        "kind": "study",
        "name": str(study.header["name"]),
        "command": study.header.get("command") or UNKNOWN,
        "declared": study.declared,
        "seeds": list(study.header.get("seeds") or []),
        "backbones": _distinct(
            {"name": run.get("backbone"), "licence": _licence(run, "backbone")} for run in runs
        ),
        "targets": _distinct(
            target_facts(run) | {"composition": _whole(run, "target")} for run in runs
        ),
        "sources": _distinct(
            source_facts(run) | {"composition": _whole(run, "source")} for run in runs
        ),
        "transforms_sha256": _distinct(_known(run, "transforms_sha256") for run in runs),
        "label_maps": _distinct(_label_map(run) for run in runs),
        "arms": [_arm(cell, arm) for cell in cells for arm in cell.arms],
        "near_duplicates": _distinct(run.get("near_duplicates") for run in runs),
        "commits": _distinct(found.get("commit") or UNKNOWN for found in environments),
        "hardware": _distinct(found.get("hardware") or UNKNOWN for found in environments),
        "energy": energy_of([run.get("cost") or {} for run in runs]),
        "verdicts": [{key: own.get(key) for key in VERDICT_FIELDS} for own in verdicts],
    }
    return _sealed(card)


def write_run_card(directory: Path, record: Record) -> Record:
    """Write ``card.json`` and ``card.md`` into a run's folder; return the card."""
    return _written(directory, run_card(record), run_text)


def write_card(study: Study, cells: Sequence[Cell], verdicts: Sequence[Record]) -> Record:
    """Write ``card.json`` and ``card.md`` into a study's folder; return the card."""
    return _written(study.directory, study_card(study, cells, verdicts), study_text)


def target_facts(record: Record) -> Record:
    """Return which images a run adapted to and was tested on."""
    return {
        "name": record["target"],
        "licence": _licence(record, "target"),
        "fingerprint": _known(record, "data_fingerprint"),
        "split_sha256": _known(record, "split_sha256"),
        "test_ids_sha256": _known(record, "test_ids_sha256"),
        "images": {part: record.get(f"n_{part}") for part in ("train", "validation", "test")},
        "also_test": {
            name: {
                "licence": ((record.get("licences") or {}).get("also_test") or {}).get(name)
                or UNKNOWN,
                "fingerprint": fingerprint,
            }
            for name, fingerprint in sorted(
                ((record.get("identity") or {}).get("also_test") or {}).items()
            )
        },
    }


def source_facts(record: Record) -> Record:
    """Return where a run's weights came from; ``id`` is a run's, or the SHA-256 of weights."""
    nothing = record.get("source_id") is None
    return {
        "name": record["source"],
        "id": record.get("source_id"),
        "licence": "none" if nothing else _licence(record, "source"),
        "fingerprint": "none" if nothing else _known(record, "source_fingerprint"),
        "split_sha256": "none" if nothing else _known(record, "source_split_sha256"),
    }


def energy_of(costs: Sequence[Record]) -> Record:
    """Add up the energy of fits.

    Args:
        costs: the ``cost`` of each run.

    Returns:
        ``kwh`` and ``co2e_kg`` (None where no run states them), ``how`` (``measured``,
        ``estimated``, ``mixed`` or ``unknown``), and of how many runs, with how many unstated.
    """
    stated = [cost["energy"] for cost in costs if cost.get("energy")]
    ways = sorted({str(own["how"]) for own in stated})
    return {
        "kwh": math.fsum(float(own["kwh"]) for own in stated) if stated else None,
        "co2e_kg": math.fsum(float(own["co2e_kg"]) for own in stated) if stated else None,
        "how": UNKNOWN if not ways else ways[0] if len(ways) == 1 else "mixed",
        "by": sorted({str(own["by"]) for own in stated}),
        "runs": len(stated),
        "runs_unstated": len(costs) - len(stated),
    }


_PLACES = ("host", "commit", "hardware", "threads")


def _arm(cell: Cell, arm: Arm) -> Record:
    return {
        "cell": cell.id,
        "arm": arm.id,
        "role": arm.declared["role"],
        "source": arm.declared["source"],
        "strategy": arm.declared["strategy"],
        "hyper_parameters": arm.settings,
        "tuning": {
            "trials": arm.trials,
            "trials_in_runs": arm.trials_in_runs,
            "grid": arm.tuning.get("grid") or {},
            "search": arm.tuning.get("search"),
            "seeds": list(arm.tuning.get("seeds") or []),
        },
        "runs": [
            {
                "seed": seed,
                "run_id": run["run_id"],
                "status": run["status"],
                "steps": run.get("budget_steps"),
                "weights_sha256": (run.get("weights") or {}).get("sha256"),
                "split_sha256": _known(run, "split_sha256"),
                "subset_sha256": _known(run, "train_ids_sha256"),
                "transforms_sha256": _known(run, "transforms_sha256"),
            }
            for seed, run in sorted(arm.runs.items())
        ],
    }


def _composition(record: Record, side: str) -> Record | None:
    found: Record | None = (record.get("composition") or {}).get(side)
    return found


def _whole(record: Record, side: str) -> Record | None:
    """The composition without what differs from replicate to replicate."""
    found = _composition(record, side)
    return found and {key: own for key, own in found.items() if key != "train_subset"}


def _licence(record: Record, side: str) -> str:
    return str((record.get("licences") or {}).get(side) or UNKNOWN)


def _known(record: Record, field: str) -> str:
    return str(record.get(field) or UNKNOWN)


def _label_map(record: Record) -> dict[str, str]:
    return {str(number): str(name) for number, name in enumerate(record.get("classes") or [])}


def _distinct(values: Iterable[Any]) -> list[Any]:
    """The different values, in the order of their first appearance; None counts for nothing."""
    alike = {repr(value): value for value in values if value is not None}  # quick, most repeat
    return list({json.dumps(value, sort_keys=True): value for value in alike.values()}.values())


def _sealed(card: Record) -> Record:
    return card | {"card_sha256": sha256_record(card)}


def _written(directory: Path, card: Record, text: Any) -> Record:
    write_json(directory / "card.json", card)
    write_text(directory / "card.md", text(card))
    return card
