from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transferlab.analysis.early import ENOUGH, early_sentence, early_table
from transferlab.analysis.judge import judge

Synthetic = Callable[..., Any]


def written(synthetic: Synthetic, early: dict[str, float | None], own: bool = False) -> Path:
    writer = synthetic()
    writer.own_validation = own
    plans = [synthetic.Plan(name, early=value) for name, value in early.items()]
    scratch = synthetic.Plan("scratch", "none", "scratch", "scratch", early=0.0)
    directory: Path = writer.write({5: [scratch, *plans]})
    return directory


def by_arm(directory: Path) -> dict[str, dict[str, Any]]:
    return {record["arm"]: record for record in judge(directory).verdicts}


@pytest.mark.parametrize("own", [False, True])
def test_it_warns_of_what_is_behind_early_and_of_nothing_else(
    synthetic: Synthetic, own: bool
) -> None:
    found = by_arm(written(synthetic, {"behind": -0.9, "even": 0.0, "ahead": 0.9}, own))
    assert {name: record["early"]["fires"] for name, record in found.items()} == {
        "behind": True, "even": False, "ahead": False,
    }  # fmt: skip
    early = found["behind"]["early"]
    low, high = early["ci95"]
    assert low < early["delta"] < high < 0
    assert (early["step"], early["metric"], early["n_pairs"]) == (20, "accuracy", 8)


def test_a_verdict_never_reads_it(synthetic: Synthetic) -> None:
    directory = written(synthetic, {"arm": -0.9})
    warned = by_arm(directory)["arm"]
    for path in directory.glob("runs/*/early.parquet"):
        path.unlink()
    silent = by_arm(directory)["arm"]
    assert warned["early"]["fires"]
    assert silent["early"] is None
    assert [warned[key] for key in warned if key not in ("early", "card_hash")] == [
        silent[key] for key in silent if key not in ("early", "card_hash")
    ]


def test_runs_without_early_answers_have_no_alarm(synthetic: Synthetic) -> None:
    record = by_arm(written(synthetic, {"arm": None}))["arm"]
    assert record["early"] is None
    assert early_table([record]) is None


def test_the_table_names_alarm_and_verdict(synthetic: Synthetic) -> None:
    found = by_arm(written(synthetic, {"behind": -0.9, "ahead": 0.9}))
    table = early_table(list(found.values()))
    assert table is not None
    assert [row[:2] for row in table.rows] == [["behind", "warns"], ["ahead", "silent"]]
    assert all(len(row) == len(table.head) for row in table.rows)
    assert f"from {ENOUGH} on" in table.note


def test_alarms_are_counted_from_twenty_comparisons_on() -> None:
    generator = np.random.default_rng(0)
    records = []
    for index in range(ENOUGH):
        early = float(generator.normal() - (index < 5))
        records.append(
            {
                "verdict": "negative" if index < 5 else "positive",
                "delta": 0.0,
                "early": {"delta": early, "fires": early < 0},
            }
        )
    fired = [record for record in records if record["early"]["fires"]]
    ended = sum(record["verdict"] == "negative" for record in fired)
    bad = [record["early"]["delta"] for record in records[:5]]
    other = [record["early"]["delta"] for record in records[5:]]
    area = np.mean([[b < o for o in other] for b in bad])
    assert early_sentence(records) == (
        f"Of {len(fired)} comparisons that it warned of, {ended} ended negative; of "
        f"{ENOUGH - len(fired)} others, {5 - ended}; AUROC {area:.2f}."
    )
