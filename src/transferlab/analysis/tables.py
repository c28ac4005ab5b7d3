"""runs.csv and verdicts.csv: flat tables for scripts and spreadsheets."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from transferlab.analysis.formats import csv_row
from transferlab.analysis.load import Study
from transferlab.records import Record

RUN_COLUMNS = (
    "run_id", "status", "reason", "purpose", "cell", "arm", "role", "source", "source_id", "target",
    "shots", "fraction", "backbone", "head", "strategy", "init", "seed", "lr", "settings",
    "budget_steps", "batch_size", "image_size", "n_train", "n_validation", "n_test", "metric",
    "n_trials",
)  # fmt: skip
SPLITS = ("train", "validation", "test")
SCORES = ("accuracy", "macro_recall", "log_loss")
COSTS = (
    "fit_seconds", "total_seconds", "peak_memory_bytes", "parameters", "trainable_parameters",
    "multiply_adds_per_image", "training_multiply_adds",
)  # fmt: skip
HASHES = ("split_sha256", "test_ids_sha256", "data_fingerprint", "preprocessing_sha256")

VERDICT_COLUMNS = (
    "cell", "arm", "source", "target", "strategy", "backbone", "shots", "fraction", "n_target",
    "metric", "verdict", "word", "reason", "withheld", "delta", "ci95_low", "ci95_high",
    "ci95_family_low", "ci95_family_high", "p_sign", "p_sign_holm", "p_equiv", "p_equiv_holm",
    "beyond_margin", "delta_margin", "alpha", "n_pairs", "family_m", "look", "looks", "steps",
    "trials_transfer", "trials_scratch", "diverged_transfer", "diverged_scratch", "run_part_A",
    "test_part_B", "median_delta", "delta_logloss", "rel_error_reduction", "cost_ratio", "scope",
    "seeds_needed", "blame", "flags", "sentence",
)  # fmt: skip


def runs_csv(study: Study) -> str:
    """One row for every readable run, in the order of the run ids."""
    place = _places(study)
    columns = [*RUN_COLUMNS, *(f"{split}_{score}" for split in SPLITS for score in SCORES)]
    columns += [*COSTS, *HASHES]
    return _csv(columns, [_run_row(run, place.get(key, {})) for key, run in study.runs.items()])


def verdicts_csv(verdicts: Sequence[Record]) -> str:
    """One row for every verdict, in the order of verdicts.json."""
    return _csv(VERDICT_COLUMNS, [_verdict_row(verdict) for verdict in verdicts])


def _places(study: Study) -> dict[str, Record]:
    """Run id to its cell and arm; a run that serves several cells names them all."""
    places: dict[str, dict[str, list[str]]] = {}
    for cell in study.header["cells"]:
        for arm in cell["arms"]:
            tuned = (arm.get("tuning") or {}).get("runs", [])
            for run_id in [*(entry["run_id"] for entry in arm["runs"]), *tuned]:
                place = places.setdefault(run_id, {"cell": [], "arm": [], "role": []})
                for key, value in (("cell", cell["id"]), ("arm", arm["id"]), ("role", arm["role"])):
                    if value not in place[key]:
                        place[key].append(value)
    return {
        run_id: {key: "; ".join(values) for key, values in place.items()}
        for run_id, place in places.items()
    }


def _run_row(run: Record, place: Record) -> Record:
    row = {**{key: run.get(key) for key in (*RUN_COLUMNS, *HASHES)}, **place}
    row["settings"] = json.dumps(run.get("settings") or {}, sort_keys=True)
    for split in SPLITS:
        scores = (run.get("metrics") or {}).get(split) or {}
        row |= {f"{split}_{score}": scores.get(score) for score in SCORES}
    return row | {key: (run.get("cost") or {}).get(key) for key in COSTS}


def _verdict_row(verdict: Record) -> Record:
    row = {key: verdict.get(key) for key in VERDICT_COLUMNS}
    for name in ("ci95", "ci95_family"):
        row[f"{name}_low"], row[f"{name}_high"] = verdict[name] or (None, None)
    for name in ("delta_logloss", "rel_error_reduction"):
        row[name] = (verdict[name] or {}).get("value")
    for arm in ("transfer", "scratch"):
        row[f"trials_{arm}"] = verdict["trials"][arm]
        row[f"diverged_{arm}"] = verdict["failures"][arm]["diverged"]
    row["look"], row["looks"] = verdict["look"]["index"], verdict["look"]["of"]
    row["family_m"], row["steps"] = verdict["family"]["m"], verdict["budget"]["steps"]
    row["blame"] = (verdict["blame"] or {}).get("culprit")
    row["cost_ratio"] = (verdict["cost"] or {}).get("ratio")
    row["seeds_needed"] = json.dumps(verdict["seeds_needed"])
    row["flags"] = "; ".join(verdict["flags"])
    return row


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([own[column] for column in columns] for own in map(csv_row, rows))
    return stream.getvalue()
