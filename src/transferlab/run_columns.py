"""Metadata columns that are asked for after a run was made: added to its predictions."""

from transferlab.evaluation import replace_columns, report_columns
from transferlab.planning import Plan
from transferlab.records import Record, write_json


def lacks_columns(plan: Plan, record: Record) -> bool:
    """Say whether a finished run's predictions carry other columns than those asked for."""
    same = plan.notes["report_sha256"] == record.get("report_sha256")
    return record["status"] == "done" and plan.cfg.purpose != "tune" and not same


def carry_columns(plan: Plan, record: Record) -> Record:
    """Give a finished run's predictions the metadata columns that are asked for; nothing trains.

    Returns:
        the record, written anew.
    """
    names = plan.notes["report_by"]
    own = report_columns(plan.data.store.index, names)
    files = {"predictions.parquet": (plan.data.store, own)} | {
        f"predictions-{name}.parquet": (test.store, test.columns)
        for name, test in plan.further.items()
    }
    for name, (store, columns) in files.items():
        replace_columns(plan.directory / name, store, columns)
    keys = ("report_by", "report_sha256", "composition")
    record = record | {key: plan.notes[key] for key in keys}
    write_json(plan.directory / "run.json", record)
    return record
