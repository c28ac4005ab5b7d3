"""Tables of forgetting and drift say what the records of the replicates say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transferlab.analysis.arms import cells_of
from transferlab.analysis.forgetting import drift, forgetting
from transferlab.analysis.load import load_study


def record(head: float, probe: float, cka: float | None, n: int = 1000) -> dict[str, Any]:
    return {
        "source": "glyphs",
        "source_run": "f" * 16,
        "n": 94,
        "n_probe": 200,
        "source_accuracy": {"before": 0.9, "after": 0.9 - head},
        "F_head": head,
        "probe_accuracy": {"before": 0.8, "after": 0.8 - probe},
        "F_probe": probe,
        "drift": [
            {"group": "stem", "cka": 1.0, "unbiased_cka": 1.0, "n": n, "dims": 32},
            {"group": "layer1", "cka": cka, "unbiased_cka": cka and cka - 0.1, "n": n, "dims": 64},
        ],
    }


def written(synthetic: Callable[..., Any], *values: Any, n: int = 1000) -> Any:
    """Write a study of two seeds a value each, and return its cell."""
    writer = synthetic(f"study{len(values)}-{n}-{values[0][0]}", seeds=2)
    plans = [synthetic.SCRATCH]
    for number, (head, probe, cka) in enumerate(values):
        measured = record(head, probe, cka, n) if head is not None else None
        plans.append(synthetic.Plan(f"arm {number}", run={"forgetting": measured}))
    folder: Path = writer.write({5: plans})
    return cells_of(load_study(folder))[0]


def test_an_arm_is_the_mean_and_range_of_its_replicates(synthetic: Callable[..., Any]) -> None:
    cell = written(synthetic, (0.1, 0.02, 0.8))
    runs = cell.arms[1].runs
    runs[1]["forgetting"] = record(0.3, -0.04, 0.6)
    table = forgetting(cell)
    assert table.head[:4] == ["arm", "source", "source accuracy before", "after"]
    assert table.rows == [
        ["arm 0", "glyphs", "90.0", "70.0", "+20.0", "+10.0 to +30.0", "−1.0", "−4.0 to +2.0", "2"]
    ]
    assert drift(cell).rows == [
        ["arm 0", "stem", "1.000", "1.000 to 1.000", "1.000", "1.000 to 1.000", "1000", "32"],
        ["arm 0", "layer1", "0.700", "0.600 to 0.800", "0.600", "0.500 to 0.700", "1000", "64"],
    ]


def test_a_single_replicate_has_no_range(synthetic: Callable[..., Any]) -> None:
    cell = written(synthetic, (0.1, 0.02, 0.8))
    cell.arms[1].runs[1]["forgetting"] = None
    (row,) = forgetting(cell).rows
    assert row[4:] == ["+10.0", "–", "+2.0", "–", "1"]


def test_arms_that_did_not_measure_it_have_no_row(synthetic: Callable[..., Any]) -> None:
    cell = written(synthetic, (None, None, None), (0.0, 0.0, 1.0))
    assert [row[0] for row in forgetting(cell).rows] == ["arm 1"]
    assert [row[0] for row in drift(cell).rows] == ["arm 1", "arm 1"]
    nothing = written(synthetic, (None, None, None))
    assert forgetting(nothing).rows == drift(nothing).rows == []


def test_features_that_do_not_vary_have_no_similarity(synthetic: Callable[..., Any]) -> None:
    rows = drift(written(synthetic, (0.1, 0.1, None))).rows
    assert rows[1][2:6] == ["–", "–", "–", "–"]


def test_few_items_send_the_reader_to_the_unbiased_figure(synthetic: Callable[..., Any]) -> None:
    assert "unbiased" not in drift(written(synthetic, (0.1, 0.1, 0.5))).note
    assert "read the unbiased one" in drift(written(synthetic, (0.1, 0.1, 0.5), n=639)).note
