import csv
import gc
import json
import time
from collections.abc import Callable
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from transferlab.analysis.judge import judge
from transferlab.analysis.load import Answers, read_items
from transferlab.analysis.terminal import show
from transferlab.errors import UserError

OUTPUTS = ("verdicts.json", "verdicts.csv", "runs.csv", "report.html")


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(path.read_text())))


def by_arm(directory: Path) -> dict[str, dict[str, Any]]:
    judge(directory)
    verdicts = json.loads((directory / "verdicts.json").read_text())["verdicts"]
    return {verdict["arm"]: verdict for verdict in verdicts}


def test_all_four_words_occur_with_interval_p_and_sentence(synthetic: Callable[..., Any]) -> None:
    study = synthetic(items=2000, noise=0.02)
    plans = [
        *synthetic.FAMILY,
        synthetic.Plan("fine_tune from twin", source="twin"),
        synthetic.Plan("fine_tune from odd", source="odd", shift=0.12, noise=0.5),
    ]
    verdicts = by_arm(study.write({5: plans}, margin=0.02))
    words = {arm: verdict["verdict"] for arm, verdict in verdicts.items()}
    assert words["fine_tune from glyphs"] == "positive"
    assert words["feature_extraction from noise"] == "negative"
    assert words["fine_tune from twin"] == "equivalent"
    assert "inconclusive" in words.values()
    assert "frozen random weights" not in verdicts, "a control is no member of the family"
    for verdict in verdicts.values():
        assert verdict["family"] == {"id": "target.shots=5", "m": 6}
        assert verdict["ci95"][0] < verdict["delta"] < verdict["ci95"][1]
        assert verdict["ci95_family"][0] < verdict["ci95"][0]
        assert verdict["p_sign"] <= verdict["p_sign_holm"]
        assert verdict["n_pairs"] == len(verdict["per_replicate_delta"]) == 8
        assert verdict["trials"] == {"transfer": 12, "scratch": 12}
        assert verdict["budget"] == {"steps": 100, "kind": "equal"}
    assert verdicts["fine_tune from glyphs"]["sentence"].startswith(
        "With 8 paired runs at equal steps (100), fine-tuning from glyphs raises test accuracy on "
        "digits (5 shots a class) by "
    )
    assert verdicts["fine_tune from glyphs"]["sentence"].endswith(": helps.")


def test_delta_is_the_mean_difference_of_the_recorded_scores(
    synthetic: Callable[..., Any],
) -> None:
    directory = synthetic().write({5: synthetic.FAMILY})
    verdict = by_arm(directory)["fine_tune from glyphs"]
    runs = rows_of(directory / "runs.csv")

    def mean(arm: str) -> float:
        scores = [float(run["test_accuracy"]) for run in runs if run["arm"] == arm]
        return sum(scores) / len(scores)

    expected = mean("fine_tune from glyphs") - mean("scratch")
    assert verdict["delta"] == pytest.approx(expected, abs=1e-12)
    assert sum(verdict["per_replicate_delta"]) / 8 == pytest.approx(expected, abs=1e-12)
    assert verdict["delta_logloss"]["value"] < 0, "better predictions lose less"
    assert verdict["rel_error_reduction"]["value"] > 0


def test_same_records_give_the_same_bytes(synthetic: Callable[..., Any]) -> None:
    directory = synthetic().write({5: synthetic.FAMILY, 20: synthetic.FAMILY})
    judge(directory)
    first = {name: (directory / name).read_bytes() for name in OUTPUTS}
    judge(directory)
    assert first == {name: (directory / name).read_bytes() for name in OUTPUTS}


def test_csv_has_a_row_for_every_run_and_verdict(synthetic: Callable[..., Any]) -> None:
    directory = synthetic(seeds=3).write({5: synthetic.FAMILY})
    judge(directory)
    runs = rows_of(directory / "runs.csv")
    assert len(runs) == 3 * len(synthetic.FAMILY)
    wanted = {"cell", "arm", "role", "seed", "test_accuracy", "fit_seconds", "split_sha256"}
    assert wanted <= set(runs[0])
    verdicts = rows_of(directory / "verdicts.csv")
    assert [row["arm"] for row in verdicts] == [
        plan.id for plan in synthetic.FAMILY if plan.role == "transfer"
    ]
    wanted = {"verdict", "delta", "ci95_low", "ci95_high", "p_sign_holm", "cost_ratio", "sentence"}
    assert wanted <= set(verdicts[0])


def test_damaged_records_are_counted_and_left_out(synthetic: Callable[..., Any]) -> None:
    directory = synthetic().write({5: synthetic.FAMILY})
    folders = sorted((directory / "runs").iterdir())
    (folders[0] / "run.json").write_text('{"run_id": "ha')
    (folders[1] / "run.json").write_text("[]")
    (folders[2] / "predictions.parquet").write_bytes(b"PAR1 no more")
    (folders[3] / "run.json").unlink()
    judgement = judge(directory)
    assert judgement.notices[0].startswith("3 records could not be read")
    assert judgement.notices[1].startswith("1 run left no record yet")
    page = (directory / "report.html").read_text()
    assert "3 records could not be read" in page
    assert folders[2].name in page


def test_the_page_names_the_score_of_every_cell(synthetic: Callable[..., Any]) -> None:
    directory = synthetic().write({5: synthetic.FAMILY, 20: synthetic.FAMILY})
    path = directory / "study.json"
    declared = json.loads(path.read_text())
    declared["cells"][0]["metric"], declared["cells"][1]["metric"] = "macro_recall", "accuracy"
    path.write_text(json.dumps(declared))
    judge(directory)
    page = (directory / "report.html").read_text()
    assert "Every verdict is on test accuracy or macro recall at equal" in page


BAD = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</svg><svg onload=alert(1)>")


@pytest.mark.parametrize("bad", BAD)
def test_names_are_text_in_the_page(bad: str, synthetic: Callable[..., Any]) -> None:
    scratch = synthetic.Plan("scratch", "none", "scratch", "scratch", run={"classes": [bad, "b"]})
    arm = synthetic.Plan(bad, source=bad, strategy=bad, run={"classes": [bad, "b"]}, diverged=(1,))
    study = synthetic(seeds=4)
    directory = study.write({5: [scratch, arm]}, name=bad, command=bad)
    judge(directory)
    seen = Tags()
    seen.feed((directory / "report.html").read_text())
    assert seen.tags.isdisjoint({"script", "img"})
    assert not any(name.startswith("on") for name in seen.attributes)
    assert bad in seen.text


class Tags(HTMLParser):
    """What a browser would make of a page: its tags, their attributes, and what is mere text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_names_are_text_in_cards_and_in_spreadsheets(synthetic: Callable[..., Any]) -> None:
    bad, formula = "[x](javascript:alert(1)) <img src=x> `a`\n# b", "=HYPERLINK(1)"
    scratch = synthetic.Plan("scratch", "none", "scratch", "scratch")
    arms = [synthetic.Plan(name, source=name, strategy=name) for name in (bad, formula)]
    directory = synthetic(seeds=4).write({5: [scratch, *arms]}, name=bad, command=bad)
    judge(directory)
    card = (directory / "card.md").read_text()
    assert "<img" not in card
    assert "](" not in card.replace("\\](", "")
    assert "\n# b" not in card
    with (directory / "verdicts.csv").open(newline="") as stream:
        names = [row["arm"] for row in csv.DictReader(stream)]
    assert f"'{formula}" in names
    assert bad in names, "other names stay as they are"
    verdicts = json.loads((directory / "verdicts.json").read_text())["verdicts"]
    assert formula in [verdict["arm"] for verdict in verdicts]


def test_page_needs_nothing_from_outside(synthetic: Callable[..., Any]) -> None:
    directory = synthetic(seeds=3).write({5: synthetic.FAMILY})
    judge(directory)
    page = (directory / "report.html").read_text()
    for outside in ("http://", "https://", "<link", "<img", "@import", "url("):
        assert outside not in page
    order = ["verdicts", "replicates", "curves", "baselines", "cost", "overfitting", "compared"]
    places = [page.index(f'<section id="{name}"') for name in order]
    assert places == sorted(places)
    assert "logistic regression on raw pixels" in page


def test_single_runs_give_a_report_that_says_how_to_get_verdicts(
    synthetic: Callable[..., Any],
) -> None:
    directory = synthetic(seeds=3).write({5: synthetic.FAMILY[:3]})
    (directory / "study.json").unlink()
    judgement = judge(directory)
    assert not judgement.declared
    assert "transferlab run experiment=" in judgement.advice
    assert "transferlab run experiment=" in (directory / "report.html").read_text()
    assert len(rows_of(directory / "runs.csv")) == 9
    assert json.loads((directory / "verdicts.json").read_text())["verdicts"] == []
    stream = StringIO()
    show(judgement, Console(file=stream))
    assert "feature_extraction" in stream.getvalue()
    assert "transferlab run experiment=" in stream.getvalue().replace("\n", " ")


@pytest.mark.parametrize(
    "case", ["missing", "file", "empty", "foreign", "run", "damaged", "lacking"]
)
def test_a_folder_that_is_no_study_says_what_to_do(
    case: str, tmp_path: Path, synthetic: Callable[..., Any]
) -> None:
    path = tmp_path / "x"
    if case == "file":
        path.write_text("")
    elif case != "missing":
        path.mkdir()
    if case == "foreign":
        (path / "notes.txt").write_text("hello")
    if case == "run":
        path = next((synthetic(seeds=1).write({5: [synthetic.SCRATCH]}) / "runs").iterdir())
    if case == "damaged":
        (path / "study.json").write_text('{"name"')
    if case == "lacking":
        (path / "study.json").write_text('{"name": "x"}')
    with pytest.raises(UserError) as caught:
        judge(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    assert any(word in message for word in ("Give the folder", "Run the study's command again"))


def test_a_folder_that_cannot_be_written_is_said(
    synthetic: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = synthetic(seeds=2).write({5: [synthetic.SCRATCH]})

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("transferlab.analysis.judge.write_text", refuse)
    with pytest.raises(UserError, match="Permission denied"):
        judge(directory)


def test_garbage_is_not_sought_while_judging_but_is_after_it_failed(
    synthetic: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = synthetic(seeds=2).write({5: [synthetic.SCRATCH]})
    sought: list[bool] = []

    def refuse(*_: object) -> None:
        sought.append(gc.isenabled())
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("transferlab.analysis.judge.write_text", refuse)
    with pytest.raises(UserError):
        judge(directory)
    assert sought == [False]
    assert gc.isenabled()


def test_terminal_table_fits_100_columns_without_colour(synthetic: Callable[..., Any]) -> None:
    long = synthetic.Plan(
        "long", source="a_source_of_a_very_long_name_indeed", strategy="a_strategy_of_a_long_name"
    )
    judgement = judge(synthetic().write({5: [*synthetic.FAMILY, long], 20: synthetic.FAMILY}))
    stream = StringIO()
    show(judgement, Console(file=stream, no_color=True))
    lines = stream.getvalue().splitlines()
    assert max(len(line) for line in lines if not line.startswith("Report:")) <= 100
    assert "\x1b" not in stream.getvalue()
    for word in ("helps", "hurts", "undecided", "glyphs", "×"):
        assert word in stream.getvalue()


def test_a_study_in_progress_already_has_a_report(synthetic: Callable[..., Any]) -> None:
    nothing = [
        synthetic.Plan(plan.id, plan.source, plan.strategy, plan.role, missing=tuple(range(8)))
        for plan in synthetic.FAMILY
    ]
    verdicts = by_arm(synthetic().write({5: nothing}))
    assert {v["verdict"] for v in verdicts.values()} == {"inconclusive"}
    assert {v["reason"] for v in verdicts.values()} == {"missing_runs"}
    assert all(v["sentence"] for v in verdicts.values())


def test_effort_grows_in_proportion_to_the_records(
    synthetic: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []

    def counted(directory: Path, run_id: str, **options: Any) -> Answers:
        reads.append(run_id)
        return read_items(directory, run_id, **options)

    monkeypatch.setattr("transferlab.analysis.pairs.read_items", counted)

    def seconds(name: str, seeds: int) -> float:
        directory = synthetic(name, seeds=seeds, items=50).write({5: synthetic.FAMILY})
        reads.clear()
        start = time.perf_counter()
        judge(directory)
        assert sorted(reads) == sorted(path.name for path in (directory / "runs").iterdir())
        return time.perf_counter() - start

    seconds("warm", 2)
    few, many = seconds("few", 5), seconds("many", 40)
    assert many < 8 * 4 * few, "eight times the records, and room for a busy machine"
