"""What else a study is asked: the source, parts of it, own budgets, other baselines and scores."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from transferlab.analysis.arms import cells_of
from transferlab.analysis.judge import contrast, judge
from transferlab.analysis.load import load_study
from transferlab.analysis.outcomes import undecided
from transferlab.analysis.selection import best_of_sources
from transferlab.analysis.terminal import show
from transferlab.analysis.verdicts import judge_against, judge_cells
from transferlab.errors import UserError
from transferlab.stats.verdict import transfer_verdict


def judged(directory: Path) -> Any:
    study = load_study(directory)
    return judge_cells(study, cells_of(study))


def edited(directory: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    path = directory / "study.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    return directory


def validations(directory: Path, scores: dict[str, list[float]]) -> None:
    """Set the validation accuracy of every run of some arms, seed by seed."""
    study = json.loads((directory / "study.json").read_text())
    for arm in study["cells"][0]["arms"]:
        for entry, score in zip(arm["runs"], scores.get(arm["id"], []), strict=False):
            path = directory / "runs" / entry["run_id"] / "run.json"
            run = json.loads(path.read_text())
            run["metrics"]["validation"]["accuracy"] = score
            path.write_text(json.dumps(run))


@pytest.fixture
def two(synthetic: Callable[..., Any]) -> list[Any]:
    """Two strategies from one source, one of which hurts."""
    return [
        synthetic.SCRATCH,
        synthetic.Plan("good", shift=0.6),
        synthetic.Plan("bad", strategy="feature_extraction", shift=-1.4),
    ]


class TestSources:
    def test_the_best_on_validation_stands_for_its_source(
        self, synthetic: Callable[..., Any], two: list[Any]
    ) -> None:
        directory = synthetic(seeds=6).write({5: two})
        validations(directory, {"good": [0.9] * 5 + [0.1], "bad": [0.5] * 6})
        (cell,) = cells_of(load_study(directory))
        (best,) = best_of_sources(cell, "accuracy")
        assert best.declared["chosen"] == {"good": 5, "bad": 1}
        good, bad = cell.arm("good"), cell.arm("bad")
        assert good is not None
        assert bad is not None
        assert [best.runs[seed]["run_id"] for seed in range(6)] == [
            *(good.runs[seed]["run_id"] for seed in range(5)),
            bad.runs[5]["run_id"],
        ]

    def test_a_loss_of_one_strategy_is_not_the_sources(
        self, synthetic: Callable[..., Any], two: list[Any]
    ) -> None:
        directory = synthetic(seeds=6).write({5: two})
        validations(directory, {"good": [0.9] * 6, "bad": [0.5] * 6})
        found = judged(directory)
        words = {record["arm"]: record["verdict"] for record in found.strategies}
        (source,) = found.sources
        assert words == {"good": "positive", "bad": "negative"}
        assert source["verdict"] == "positive"
        assert source["family"] == {"id": "target.shots=5: source", "m": 1}
        assert "strategy_chosen" in source["flags"]
        blame = next(r for r in found.strategies if r["arm"] == "bad")["blame"]
        assert blame["source_verdict"] == "positive"
        assert "the harm is this strategy's" in blame["sentence"]

    def test_a_source_that_hurts_at_its_best_is_called_negative(
        self, synthetic: Callable[..., Any], two: list[Any]
    ) -> None:
        plans = [synthetic.SCRATCH, synthetic.Plan("a", shift=-1.2), two[2]]
        directory = synthetic(seeds=6).write({5: plans})
        found = judged(directory)
        (source,) = found.sources
        assert source["verdict"] == "negative"
        assert all("Negative transfer from glyphs" in r["sentence"] for r in found.strategies)

    def test_validation_chooses_and_never_test(
        self, synthetic: Callable[..., Any], two: list[Any]
    ) -> None:
        """The arm that is best on test is left where validation prefers the other."""
        directory = synthetic(seeds=6).write({5: two})
        validations(directory, {"good": [0.2] * 6, "bad": [0.8] * 6})
        (source,) = judged(directory).sources
        assert source["chosen"] == {"good": 0, "bad": 6}
        assert source["verdict"] == "negative"

    def test_the_terminal_says_it_in_one_line(
        self, synthetic: Callable[..., Any], two: list[Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        show(judge(synthetic(seeds=6).write({5: two})))
        lines = [line for line in capsys.readouterr().out.splitlines() if "by the strategy" in line]
        (line,) = lines
        assert line.startswith("  5 shots: glyphs, by the strategy that validation chooses: helps")

    def test_one_strategy_is_no_choice(self, synthetic: Callable[..., Any]) -> None:
        directory = synthetic(seeds=3).write({5: synthetic.FAMILY[:2]})
        assert judged(directory).sources == []

    def test_a_replicate_without_one_of_the_runs_is_missing(
        self, synthetic: Callable[..., Any], two: list[Any]
    ) -> None:
        two[1] = synthetic.Plan("good", shift=0.6, missing=(0,))
        (cell,) = cells_of(load_study(synthetic(seeds=4).write({5: two})))
        assert sorted(best_of_sources(cell, "accuracy")[0].runs) == [1, 2, 3]


class TestContrasts:
    def test_an_arm_takes_the_place_of_scratch(
        self, synthetic: Callable[..., Any], two: list[Any]
    ) -> None:
        directory = synthetic(seeds=6).write({5: two})
        study = load_study(directory)
        records = {r["arm"]: r for r in judge_against(study, cells_of(study), "good")}
        assert records.keys() == {"scratch", "bad"}
        assert {r["family"]["m"] for r in records.values()} == {2}
        assert records["bad"]["verdict"] == "negative"
        assert records["bad"]["against"] == "good"
        assert "bad, against good, lowers" in records["bad"]["sentence"]
        assert records["bad"]["sentence"].endswith("worse.")
        first = next(r for r in judged(directory).strategies if r["arm"] == "good")
        assert records["scratch"]["delta"] == pytest.approx(-first["delta"])

    def test_files_are_named_after_the_arm_and_the_studys_own_stay(
        self, synthetic: Callable[..., Any], two: list[Any]
    ) -> None:
        directory = synthetic(seeds=4).write({5: two})
        judge(directory)
        before = (directory / "verdicts.json").read_bytes()
        found = contrast(directory, "good")
        assert found.report.name == "report-against-good.html"
        assert "against good" in found.report.read_text()
        assert "training from scratch" not in found.report.read_text()
        assert (directory / "verdicts-against-good.json").is_file()
        assert (directory / "verdicts.json").read_bytes() == before

    def test_an_unknown_arm_names_the_nearest(
        self, synthetic: Callable[..., Any], two: list[Any]
    ) -> None:
        directory = synthetic(seeds=2).write({5: two})
        with pytest.raises(UserError, match=r"--baseline 'goood': no arm .*good"):
            contrast(directory, "goood")


class TestParts:
    def test_a_part_is_judged_by_the_arm_without_it(self, synthetic: Callable[..., Any]) -> None:
        plans = [
            synthetic.SCRATCH,
            synthetic.Plan("whole", source="mix", shift=0.2),
            synthetic.Plan("whole without letters", source="mix", role="ablation", shift=-0.6),
            synthetic.Plan("whole without noise", source="mix", role="ablation", shift=0.9),
        ]
        directory = synthetic(seeds=8).write({5: plans})

        def declare(record: dict[str, Any]) -> None:
            for arm in record["cells"][0]["arms"][2:]:
                arm |= {"of": "whole", "without": arm["id"].rpartition(" ")[2]}

        found = judged(edited(directory, declare))
        assert [r["arm"] for r in found.strategies] == ["whole"]
        parts = {r["part"]: r for r in found.parts}
        assert parts["letters"]["verdict"] == "positive"
        assert parts["noise"]["verdict"] == "negative"
        assert {r["family"]["m"] for r in found.parts} == {2}
        assert "with noise in it, against without" in parts["noise"]["sentence"]
        page = judge(directory).report.read_text()
        assert "What each part of the source adds" in page


class TestOwnBudgets:
    @pytest.mark.parametrize(
        ("equal", "own", "flag"),
        [
            (0.8, 0.8, None),
            (0.8, -0.8, "budget_dependent"),
            (0.8, 0.0, "accelerates_only"),
        ],
    )
    def test_verdicts_that_differ_are_labelled(
        self, equal: float, own: float, flag: str | None, synthetic: Callable[..., Any]
    ) -> None:
        write = synthetic(seeds=8, noise=0.0, items=2000 if own == 0 else 300)
        quick = synthetic.Plan("arm", shift=equal)
        slow = synthetic.Plan("arm", shift=own, run={"budget_steps": 300})
        directory = write.write({5: [synthetic.SCRATCH, quick], 6: [synthetic.SCRATCH, slow]})

        def declare(record: dict[str, Any]) -> None:
            twin = record["cells"][1]
            twin |= {"budget": "own_best", "own_best_of": record["cells"][0]["id"]}
            record["margin"] = 0.02

        records = judged(edited(directory, declare)).strategies
        assert [r["budget"]["kind"] for r in records] == ["equal", "own_best"]
        assert "(300 steps against 100)" in records[1]["sentence"]
        labels = {"accelerates_only", "budget_dependent"}
        assert all(labels & {*r["flags"]} == ({flag} if flag else set()) for r in records)
        page = judge(directory).report.read_text()
        assert "at equal steps, or each arm&#39;s own best where said" in page

    def test_unequal_steps_stay_an_obstacle_elsewhere(self, synthetic: Callable[..., Any]) -> None:
        slow = synthetic.Plan("arm", run={"budget_steps": 300})
        directory = synthetic(seeds=2).write({5: [synthetic.SCRATCH, slow]})
        (record,) = judged(directory).strategies
        assert record["reason"] == "unequal_steps"


class TestTuning:
    @pytest.mark.parametrize(
        ("tuning", "word", "reason"),
        [
            ({"seeds": [10000], "per": "study"}, "inconclusive", "few_tuning_seeds"),
            ({"seeds": [10000, 10001, 10002], "per": "study"}, "positive", None),
            ({"seeds": [*range(6)], "per": "replicate"}, "positive", None),
            ({"seeds": [*range(6)], "per": "study"}, "not_assessable", "tuning_seeds_overlap"),
        ],
    )
    def test_settings_that_all_share_need_three_seeds(
        self, tuning: dict[str, Any], word: str, reason: str | None, synthetic: Callable[..., Any]
    ) -> None:
        directory = synthetic(seeds=6).write(
            {5: [synthetic.SCRATCH, synthetic.Plan("a", shift=1.0)]}
        )

        def declare(record: dict[str, Any]) -> None:
            for arm in record["cells"][0]["arms"]:
                arm["tuning"] |= tuning

        (record,) = judged(edited(directory, declare)).strategies
        assert (record["verdict"], record["reason"]) == (word, reason)
        shared = tuning["per"] == "study"
        if word == "positive":
            assert ("and to these settings" in record["sentence"]) == shared

    @pytest.mark.parametrize(("split", "said"), [({"split_sha256": "s" * 64}, True), ({}, False)])
    def test_one_validation_split_for_replicates_tuned_by_themselves_is_said(
        self, split: dict[str, str], said: bool, synthetic: Callable[..., Any]
    ) -> None:
        base = synthetic.Plan("scratch", "none", "scratch", "scratch", run=split)
        directory = synthetic(seeds=3).write({5: [base, synthetic.Plan("a", run=split)]})

        def declare(record: dict[str, Any]) -> None:
            for arm in record["cells"][0]["arms"]:
                arm["tuning"] |= {"per": "replicate", "seeds": [0, 1, 2]}

        (record,) = judged(edited(directory, declare)).strategies
        assert ("validation_shared" in record["flags"]) == said


class TestScores:
    @pytest.mark.parametrize("metric", ["log_loss", "brier", "auroc"])
    def test_every_score_is_judged_with_its_own_unit(
        self, metric: str, synthetic: Callable[..., Any]
    ) -> None:
        plans = [synthetic.SCRATCH, synthetic.Plan("a", shift=-1.2)]
        directory = synthetic(seeds=6).write({5: plans}, metric=metric)
        (record,) = judged(directory).strategies
        assert record["metric"] == metric
        assert record["verdict"] == "negative"
        said = {"log_loss": "nats", "brier": "Brier points", "auroc": "points"}[metric]
        assert said in record["sentence"]
        assert ("worsens" in record["sentence"]) == (metric != "auroc")
        judge(directory)

    def test_log_loss_is_the_functions_own_verdict_on_negated_losses(
        self, synthetic: Callable[..., Any]
    ) -> None:
        plans = [synthetic.SCRATCH, synthetic.Plan("a", shift=0.3)]
        directory = synthetic(seeds=5).write({5: plans}, metric="log_loss", margin=0.05)
        (record,) = judged(directory).strategies
        study = json.loads((directory / "study.json").read_text())
        tables = []
        for arm in study["cells"][0]["arms"]:
            paths = [directory / "runs" / e["run_id"] / "predictions.parquet" for e in arm["runs"]]
            tables.append(
                np.stack([pd.read_parquet(p).sort_values("item_id")["log_prob"] for p in paths])
            )
        expected = transfer_verdict(tables[1], tables[0], margin=0.05)
        assert record["delta"] == pytest.approx(expected.delta)
        assert record["ci95"] == pytest.approx(list(expected.ci95))
        assert record["delta_logloss"]["value"] == pytest.approx(-expected.delta)

    def test_predictions_without_all_classes_cannot_be_ranked(
        self, synthetic: Callable[..., Any]
    ) -> None:
        plans = [synthetic.SCRATCH, synthetic.Plan("a")]
        directory = synthetic(seeds=2).write({5: plans}, metric="auroc")
        for path in directory.glob("runs/*/predictions.parquet"):
            pd.read_parquet(path).drop(columns="logits").to_parquet(path)
        (record,) = judged(directory).strategies
        assert (record["verdict"], record["reason"]) == ("not_assessable", "no_logits")


class TestScope:
    def test_a_claim_about_new_data_is_wider(self, synthetic: Callable[..., Any]) -> None:
        plans = [synthetic.SCRATCH, synthetic.Plan("a", shift=0.3, run={"n_pool": 50})]
        directory = synthetic(seeds=6).write({5: plans})
        (here,) = judged(directory).strategies
        (wide,) = judged(edited(directory, lambda r: r.update(scope="new_target_data"))).strategies
        assert wide["rho"] == pytest.approx(0.5)
        assert here["rho"] == 0
        assert wide["delta"] == here["delta"]
        assert wide["ci95"][0] < here["ci95"][0] < here["ci95"][1] < wide["ci95"][1]
        assert "new target images" in wide["sentence"]
        page = judge(directory).report.read_text()
        assert "limited to this pool" not in page

    def test_one_pool_used_whole_says_nothing_of_another(
        self, synthetic: Callable[..., Any]
    ) -> None:
        plans = [synthetic.SCRATCH, synthetic.Plan("a", shift=1.0, run={"n_pool": 25})]
        directory = synthetic(seeds=6).write({5: plans}, scope="new_target_data")
        (record,) = judged(directory).strategies
        assert (record["verdict"], record["reason"]) == ("inconclusive", "scope_not_estimable")
        assert not undecided(record)
