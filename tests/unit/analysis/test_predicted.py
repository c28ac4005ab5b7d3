import numpy as np
import pytest

from transferlab.analysis.predicted import (
    ENOUGH_COMPARISONS,
    agreement_table,
    alarm_auroc,
    meetings,
    predicted_table,
)
from transferlab.records import Record


def predicted(source: str, score: float | None, margin: float = 0.1, cell: str = "all") -> Record:
    w1 = {"fires": margin <= 0, "value": margin}
    return {
        "cell": cell, "source": source, "source_id": f"id-{source}",
        "neighbours": {"source": score},
        "scores": {"logme": {"value": score}, "leep": {"value": None, "reason": "no head"}},
        "alarms": {"w1": w1, "w2": {"fires": False, "value": 9.0}},
    }  # fmt: skip


def verdict(source: str, delta: float | None, word: str = "inconclusive", **more: object) -> Record:
    base = {"cell": "all", "source": source, "strategy": "fine_tune"}
    return base | {"delta": delta, "verdict": word} | more


def test_scores_and_alarms_stand_beside_gains() -> None:
    table = predicted_table(
        [predicted("letters", 0.8), predicted("noise", 0.5, margin=-0.2)],
        [verdict("letters", 0.041, "positive"), verdict("noise", -0.024, "negative"),
         verdict("unknown", 0.5)],
    )  # fmt: skip
    assert len(table.rows) == 2
    assert all(len(row) == len(table.head) for row in table.rows)
    letters, noise = (dict(zip(table.head, row, strict=True)) for row in table.rows)
    assert (letters["verdict"], noise["verdict"]) == ("helps", "hurts")
    assert (letters["alarms"], noise["alarms"]) == ("none", "w1")
    assert (letters["nearest neighbours"], letters["LEEP"]) == ("80.0", "–")
    assert "+4.1" in letters["gain"]
    assert f"from {ENOUGH_COMPARISONS} on" in table.note


def test_cells_are_told_apart_and_named_where_there_are_several() -> None:
    records = [predicted("a", 0.1, cell="5"), predicted("a", 0.9, cell="20")]
    pairs = meetings(records, [verdict("a", 0.1, cell="20")])
    assert [pair.predicted["scores"]["logme"]["value"] for pair in pairs] == [0.9]
    table = predicted_table(records, [verdict("a", 0.1, cell=cell) for cell in ("5", "20")])
    assert (table.head[0], table.words) == ("cell", 4)


def test_weights_tell_sources_of_one_name_apart() -> None:
    other = predicted("a", 0.9) | {"source_id": "other"}
    (pair,) = meetings([predicted("a", 0.1), other], [verdict("a", 0.1, source_ids=["other"])])
    assert pair.predicted is other


def test_nothing_predicted_is_an_empty_table() -> None:
    for table in (predicted_table, agreement_table):
        found = table([], [verdict("a", 0.1)])
        assert (list(found.rows), found.note) == ([], "")


def rows_of(scores: list[float | None], gains: list[float | None]) -> dict[str, list[str]]:
    names = [f"s{i}" for i in range(len(scores))]
    table = agreement_table(
        [predicted(name, score) for name, score in zip(names, scores, strict=True)],
        [verdict(name, gain) for name, gain in zip(names, gains, strict=True)],
    )
    return {row[0]: list(row[1:]) for row in table.rows}


def test_correlations_with_realised_gains() -> None:
    assert rows_of([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.9])["LogME"] == ["+1.00", "+1.00", "1"]
    assert rows_of([1, 2, 3, 4], [0.4, 0.3, 0.2, 0.1])["LogME"][0] == "-1.00"
    found = rows_of([1, 2, 3], [0.1, 0.3, 0.2])  # rho = 1 - 6 * 2 / 24
    assert found["LogME"][0] == "+0.50"
    assert "LEEP" not in found


def test_correlations_need_three_sources_with_gains_and_an_order() -> None:
    assert rows_of([1, 2], [0.1, 0.2]) == {}
    assert rows_of([1, 2, 3], [0.1, 0.2, None]) == {}
    assert rows_of([1, 1, 1], [0.1, 0.2, 0.3]) == {}


def test_groups_are_averaged_and_never_mixed() -> None:
    records = [predicted(name, score) for name, score in (("a", 1), ("b", 2), ("c", 3))]
    up = [verdict(name, gain) for name, gain in (("a", 0.1), ("b", 0.2), ("c", 0.3))]
    down = [verdict(name, gain, strategy="feature_extraction")
            for name, gain in (("a", -0.1), ("b", -0.2), ("c", -0.3))]  # fmt: skip
    table = agreement_table(records, [*up, *down])
    assert {tuple(row) for row in table.rows if row[0] == "LogME"} == {
        ("LogME", "+0.00", "+0.00", "2")
    }


def many(margins: list[float], negative: list[bool]) -> tuple[list[Record], list[Record]]:
    names = [f"s{i}" for i in range(len(margins))]
    words = ["negative" if bad else "positive" for bad in negative]
    return (
        [predicted(n, 0.5, margin) for n, margin in zip(names, margins, strict=True)],
        [verdict(n, 0.01 * i, w) for i, (n, w) in enumerate(zip(names, words, strict=True))],
    )


def test_auroc_of_alarms_from_twenty_comparisons_on() -> None:
    margins = np.linspace(-0.5, 0.45, ENOUGH_COMPARISONS).tolist()
    negative = [margin < -0.2 for margin in margins]
    records, verdicts = many(margins, negative)
    note = predicted_table(records, verdicts).note
    assert "w1: of 11 comparisons that it warned of, 6 ended negative; of 9 others, 0" in note
    assert "AUROC 1.00" in note
    assert "AUROC 0.50" in note  # w2, the same for all
    assert "AUROC" not in predicted_table(records, verdicts[:-1]).note
    unfinished = [*verdicts[:-1], verdicts[-1] | {"verdict": "not_assessable"}]
    assert "AUROC" not in predicted_table(records, unfinished).note


def test_auroc_counts_pairs_and_ties_as_halves() -> None:
    pairs = meetings(*many([-0.3, -0.1, -0.1, 0.2], [True, False, True, False]))
    assert alarm_auroc(pairs, "w1") == pytest.approx((2 + 1.5) / 4)
    assert alarm_auroc(meetings(*many([-0.3, 0.1], [True, True])), "w1") is None
