import json
import shutil
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import ttest_rel

from transferlab.analysis.foreign.judging import judge_table
from transferlab.analysis.foreign.options import Options, checked
from transferlab.analysis.foreign.terminal import show_table
from transferlab.errors import UserError
from transferlab.stats.verdict import transfer_verdict

OUTPUTS = ("verdicts.json", "verdicts.csv", "across_targets.csv", "report.html")
Rows = list[dict[str, Any]]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes rows as a table; ``.parquet`` names make Parquet files."""

    def make(rows: Rows, name: str = "results.csv") -> Path:
        frame, path = pd.DataFrame(rows), tmp_path / name
        frame.to_parquet(path) if name.endswith("parquet") else frame.to_csv(path, index=False)
        return path

    return make


def runs(
    gains: dict[tuple[str, str], float], targets: int = 1, seeds: int = 5, **more: Any
) -> Iterator[dict[str, Any]]:
    """Rows of scratch and of arms that differ from it by a gain and by noise of 0.2 points."""
    draw = np.random.default_rng(0)
    for index in range(targets):
        for (source, strategy), gain in {("", "scratch"): 0.0, **gains}.items():
            for seed in range(seeds):
                score = 0.6 + 0.01 * index + gain + 0.002 * draw.normal()
                row = {"source": source, "target": f"t{index}", "strategy": strategy}
                yield {**row, "seed": seed, "score": score, **more}


FAMILY = {("a", "fine_tune"): 0.05, ("b", "fine_tune"): -0.05, ("c", "fine_tune"): 0.0}


def verdicts_of(path: Path, options: Options | None = None) -> dict[tuple[str, str], Any]:
    judgement = judge_table(path, options or Options())
    return {(v["target"], v["source"]): v for v in judgement.verdicts}


def with_items(folder: Path, rows: Rows, shifts: dict[str, float], M: int = 400) -> Rows:
    """Give every row answers item by item, and the score that they come to."""
    draw = np.random.default_rng(7)
    ability = 1.2 * draw.normal(size=M) + 0.5
    folder.mkdir()
    for index, row in enumerate(rows):
        z = ability + shifts[row["source"]] + 0.05 * draw.normal() + 0.3 * draw.normal(size=M)
        frame = pd.DataFrame({"item_id": [f"i{i:04d}" for i in range(M)], "correct": z > 0})
        row["score"] = float(frame["correct"].mean())
        row["items"] = f"{folder.name}/{index}" + (".parquet" if index % 2 else ".csv")
        frame = frame.sample(frac=1, random_state=index)
        if index % 2:
            frame.to_parquet(folder.parent / row["items"])
        else:
            frame.astype({"correct": int}).to_csv(folder.parent / row["items"], index=False)
    return rows


def test_scores_over_seeds_are_judged_by_a_paired_t_test_and_holm(write: Write) -> None:
    rows = list(runs(FAMILY, n_items=10_000))
    found = verdicts_of(write(rows))
    frame = pd.DataFrame(rows)
    scores = {s: frame[frame["source"] == s]["score"].to_numpy() for s in ("", "a", "b", "c")}
    for source in "abc":
        reference = ttest_rel(scores[source], scores[""])
        around = reference.confidence_interval()
        assert found["t0", source]["p_sign"] == pytest.approx(reference.pvalue)
        assert found["t0", source]["ci95"] == pytest.approx([around.low, around.high])
        assert found["t0", source]["family"] == {"id": "t0", "m": 3}
        assert found["t0", source]["test_part_B"] is None
        assert "conditional_on_test_set" in found["t0", source]["flags"]
        assert "conditional on this test set" in found["t0", source]["sentence"]
    words = [found["t0", source]["verdict"] for source in "abc"]
    assert words == ["positive", "negative", "equivalent"]
    assert "raises test accuracy on t0 by 5." in found["t0", "a"]["sentence"]


@pytest.mark.parametrize(
    ("n_items", "reason"), [(None, "unknown_test_items"), (1999, "few_test_items"), (2000, None)]
)
def test_few_or_unknown_test_items_withhold_what_scores_alone_say(
    n_items: int | None, reason: str | None, write: Write
) -> None:
    found = verdicts_of(write(list(runs(FAMILY, n_items=n_items))))
    for source, word in {"a": "positive", "b": "negative", "c": "equivalent"}.items():
        verdict = found["t0", source]
        assert verdict["reason"] == reason
        assert verdict["verdict"] == ("inconclusive" if reason else word)
        assert verdict["withheld"] == (word if reason else None)
        assert (verdict["ci95_worst"] is None) == (n_items is None)
        if n_items:
            low, high = verdict["ci95_worst"]
            assert low < verdict["ci95"][0] < verdict["ci95"][1] < high


def test_answers_item_by_item_get_the_crossed_interval(write: Write, tmp_path: Path) -> None:
    rows = list(runs({("a", "fine_tune"): 0.0, ("b", "fine_tune"): 0.0}))
    rows = with_items(tmp_path / "items", rows, {"": 0.0, "a": 0.5, "b": -0.02})
    found = verdicts_of(write(rows))

    def answers(source: str) -> Any:
        paths = [tmp_path / row["items"] for row in rows if row["source"] == source]
        frames = [pd.read_csv(p) if p.suffix == ".csv" else pd.read_parquet(p) for p in paths]
        return np.stack([frame.sort_values("item_id")["correct"].to_numpy() for frame in frames])

    for source in "ab":
        alone = transfer_verdict(answers(source), answers(""))
        assert found["t0", source]["ci95"] == pytest.approx(list(alone.ci95))
        assert found["t0", source]["p_sign"] == pytest.approx(alone.unadjusted.sign)
        assert found["t0", source]["test_part_B"] == pytest.approx(alone.test_part)
        assert found["t0", source]["n_items"] == 400
        assert found["t0", source]["by_items"]
    assert found["t0", "a"]["verdict"] == "positive"


def test_items_of_some_runs_alone_are_said_to_be_unused(write: Write, tmp_path: Path) -> None:
    rows = with_items(tmp_path / "items", list(runs({("a", "f"): 0.0})), {"": 0.0, "a": 0.5})
    rows[0]["items"] = None
    verdict = verdicts_of(write(rows))["t0", "a"]
    assert not verdict["by_items"]
    assert "items_incomplete" in verdict["flags"]


def test_runs_on_different_items_are_not_compared(write: Write, tmp_path: Path) -> None:
    rows = with_items(tmp_path / "items", list(runs({("a", "f"): 0.0})), {"": 0.0, "a": 0.5})
    path = tmp_path / rows[2]["items"]
    frame = pd.read_csv(path)
    frame["item_id"] = "x" + frame["item_id"]
    frame.to_csv(path, index=False)
    verdict = verdicts_of(write(rows))["t0", "a"]
    assert (verdict["verdict"], verdict["reason"]) == ("not_assessable", "different_test_items")
    sizes = list(runs({("a", "f"): 0.0}, n_items=5000))
    sizes[-1]["n_items"] = 4000
    assert verdicts_of(write(sizes))["t0", "a"]["reason"] == "different_test_items"


def test_single_numbers_stay_undecided_and_the_targets_tell(write: Write) -> None:
    path = write(list(runs(FAMILY, targets=19, seeds=1, n_items=10_000)))
    judgement = judge_table(path, Options())
    assert len(judgement.verdicts) == 19 * 3
    assert {v["verdict"] for v in judgement.verdicts} == {"inconclusive"}
    assert {v["reason"] for v in judgement.verdicts} == {"single_replicate"}
    across = {record["source"]: record for record in judgement.across}
    assert [across[s]["verdict"] for s in "abc"] == ["positive", "negative", "inconclusive"]
    assert across["a"]["n_targets"] == across["b"]["worse"] == 19
    page = (judgement.report).read_text()
    assert page.count("one pair alone gives no interval") < 4, "said once, not for every row"
    assert "On average over targets, it helps in 1 and hurts in 1 of 3 ways." in page


def test_five_targets_are_not_tested(write: Write) -> None:
    judgement = judge_table(write(list(runs(FAMILY, targets=5))), Options())
    assert not any(record["tested"] for record in judgement.across)
    assert {record["p"] for record in judgement.across} == {None}
    assert "With fewer than 6 targets nothing is tested" in judgement.report.read_text()
    stream = StringIO()
    show_table(judgement, Console(file=stream))
    assert "Too few targets" in stream.getvalue()


def test_failed_runs_are_reported_and_their_pairs_left_out(write: Write) -> None:
    rows = list(runs({("a", "f"): 0.05}, seeds=10, n_items=10_000))
    rows[3]["score"] = float("nan")
    judgement = judge_table(write(rows), Options())
    (verdict,) = judgement.verdicts
    assert verdict["n_pairs"] == 9
    assert verdict["failures"]["scratch"] == {
        "planned": 10, "done": 9, "diverged": 1, "missing": 0
    }  # fmt: skip
    assert {"diverged_runs", "failures_not_imputed"} <= set(verdict["flags"])
    assert verdict["verdict"] == "positive"
    assert any("line 5)" in note and "chance level" in note for note in judgement.notices)
    assert "1 of 20 runs failed" in judgement.report.read_text()
    for row in rows[12:15]:
        row["score"] = float("nan")
    (verdict,) = judge_table(write(rows), Options()).verdicts
    assert verdict["reason"] == "missing_runs"
    for row in rows[15:17]:
        row["score"] = float("nan")
    (verdict,) = judge_table(write(rows), Options()).verdicts
    assert verdict["reason"] == "unstable_arm"
    assert "5 of 10 transfer runs failed" in verdict["sentence"]


def test_seeds_are_paired_by_name_and_too_few_in_common_is_said(write: Write) -> None:
    rows = list(runs({("a", "f"): 0.05}, seeds=5, n_items=10_000))
    for row in rows[5:]:
        row["seed"] += 1
    (verdict,) = judge_table(write(rows), Options()).verdicts
    assert [key["seed"] for key in verdict["replicate_keys"]] == ["1", "2", "3", "4"]
    assert (verdict["verdict"], verdict["reason"]) == ("inconclusive", "missing_runs")
    for row in rows[5:]:
        row["seed"] += 100
    (verdict,) = judge_table(write(rows), Options()).verdicts
    assert (verdict["n_pairs"], verdict["delta"]) == (0, None)
    assert verdict["reason"] == "missing_runs"


def test_a_target_without_scratch_is_not_judged_and_left_out_of_the_rest(write: Write) -> None:
    rows = list(runs(FAMILY, targets=8, n_items=10_000))
    for row in rows:
        if row["target"] == "t2" and row["strategy"] == "scratch":
            row["strategy"], row["source"] = "scratch_2", "none"
    judgement = judge_table(write(rows), Options())
    own = [v for v in judgement.verdicts if v["target"] == "t2"]
    assert {(v["verdict"], v["reason"]) for v in own} == {("not_assessable", "no_scratch_arm")}
    assert {tuple(r["left_out"]) for r in judgement.across} == {("t2",)}
    assert {r["n_targets"] for r in judgement.across} == {7}
    assert any("t2 has no row" in note and "scratch_2" in note for note in judgement.notices)


def test_a_loss_is_better_when_lower_and_has_a_unit_of_its_own(write: Write) -> None:
    rows = list(runs({("a", "f"): -0.05, ("b", "f"): 0.05}, n_items=10_000))
    options = checked("log_loss", 0.01, 0.05, percent=False, lower_is_better=True)
    found = verdicts_of(write(rows), options)
    assert found["t0", "a"]["verdict"] == "positive"
    assert found["t0", "a"]["delta"] > 0
    assert "improves test log-loss on t0 by 0.0" in found["t0", "a"]["sentence"]
    assert "worsens test log-loss on t0 by 0.0" in found["t0", "b"]["sentence"]
    assert "points" not in found["t0", "a"]["sentence"]


def test_percents_are_judged_as_shares(write: Write) -> None:
    shares = list(runs(FAMILY, n_items=10_000))
    one = verdicts_of(write(shares))
    percents = [{**row, "score": 100 * row["score"]} for row in shares]
    other = verdicts_of(write(percents), Options(percent=True))
    for key, verdict in one.items():
        assert other[key]["delta"] == pytest.approx(verdict["delta"])
        assert other[key]["verdict"] == verdict["verdict"]


@pytest.mark.parametrize("name", ["results.csv", "results.parquet"])
def test_same_table_same_bytes_wherever_it_lies(name: str, write: Write, tmp_path: Path) -> None:
    path = write(list(runs(FAMILY, targets=7, seeds=3)), name)
    judge_table(path, Options())
    first = {name: (tmp_path / "results-report" / name).read_bytes() for name in OUTPUTS}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    judge_table(Path(shutil.copy(path, elsewhere)), Options(), tmp_path / "out")
    assert first == {name: (tmp_path / "out" / name).read_bytes() for name in OUTPUTS}
    record = json.loads(first["verdicts.json"])
    assert len(record["verdicts"]) == 21
    assert len(record["across_targets"]) == 3
    frame = pd.read_csv(tmp_path / "out" / "across_targets.csv")
    assert list(frame["n_targets"]) == [7, 7, 7]
    assert len(pd.read_csv(tmp_path / "out" / "verdicts.csv")) == 21


def test_parquet_and_csv_say_the_same(write: Write) -> None:
    rows = list(runs(FAMILY, n_items=3000))
    one, other = (verdicts_of(write(rows, name)) for name in ("a.csv", "a.parquet"))
    assert one == other


def test_names_are_escaped_and_nothing_comes_from_outside(write: Write) -> None:
    bad = "<script>alert(1)</script>"
    rows = [dict(row, target=bad) for row in runs({(bad, bad): 0.1})]
    page = judge_table(write(rows), Options()).report.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    for outside in ("http://", "https://", "<link", "<img", "@import", "url("):
        assert outside not in page


def test_a_study_is_never_overwritten(write: Write, tmp_path: Path) -> None:
    path = write(list(runs(FAMILY)))
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text("{}")
    with pytest.raises(UserError, match="folder of a study"):
        judge_table(path, Options(), tmp_path / "study")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        judge_table(path, Options(), tmp_path / "file")


def test_the_terminal_shows_what_is_decided_in_100_columns(write: Write) -> None:
    judgement = judge_table(write(list(runs(FAMILY, targets=20, n_items=10_000))), Options())
    stream = StringIO()
    show_table(judgement, Console(file=stream, no_color=True))
    lines = stream.getvalue().splitlines()
    assert max(len(line) for line in lines if not line.startswith("Report:")) <= 100
    assert sum("▲ helps" in line for line in lines) == 21, "20 targets and their average"
    few = judge_table(write(list(runs(FAMILY, n_items=10_000))), Options())
    stream = StringIO()
    show_table(few, Console(file=stream))
    assert "no difference" in stream.getvalue()
    assert "Across" not in stream.getvalue()
