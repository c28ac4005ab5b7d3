"""The report's further tables: classes, groups, calibration, sizes, speed, other test sets."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from transferlab.analysis.arms import cells_of
from transferlab.analysis.calibrated import calibration
from transferlab.analysis.judge import judge
from transferlab.analysis.load import load_study
from transferlab.analysis.speed import speed_table
from transferlab.analysis.verdicts import judge_cells


def cells(directory: Path) -> Any:
    return cells_of(load_study(directory))


def judged(directory: Path) -> Any:
    study = load_study(directory)
    return judge_cells(study, cells_of(study))


def rewrite(directory: Path, change: Callable[[pd.DataFrame, str], pd.DataFrame]) -> None:
    """Change the predictions of every run, told the arm it belongs to."""
    study = json.loads((directory / "study.json").read_text())
    for arm in (arm for cell in study["cells"] for arm in cell["arms"]):
        for entry in arm["runs"]:
            path = directory / "runs" / entry["run_id"] / "predictions.parquet"
            if path.is_file():
                change(pd.read_parquet(path), arm["id"]).to_parquet(path)


class TestClasses:
    def test_a_gain_over_all_may_hide_a_class_that_is_harmed(
        self, synthetic: Callable[..., Any]
    ) -> None:
        directory = synthetic(seeds=6).write(
            {5: [synthetic.SCRATCH, synthetic.Plan("arm", shift=0.9)]}
        )

        def harm(table: pd.DataFrame, arm: str) -> pd.DataFrame:
            if arm == "arm":
                rows = table.index[table["label"] == 2]
                table.loc[rows, "prediction"] = 3
            return table

        rewrite(directory, harm)
        (record,) = judged(directory).strategies
        found = record["per_class"]
        assert found["harmed"] == ["2"]
        assert found["surely_harmed"] == ["2"]
        assert found["summary"].startswith("1 of 5 classes harmed")
        loss = next(entry for entry in found["classes"] if entry["class"] == "2")
        assert loss["delta"] < -0.3
        assert "1 of 5 classes harmed" in judge(directory).report.read_text()


class TestGroups:
    def test_the_gap_that_transfer_adds(self, synthetic: Callable[..., Any]) -> None:
        directory = synthetic(seeds=6).write({5: [synthetic.SCRATCH, synthetic.Plan("arm")]})

        def known(table: pd.DataFrame, arm: str) -> pd.DataFrame:
            table = table.sort_values("item_id").reset_index(drop=True)
            table["meta.site"] = np.where(np.arange(len(table)) % 2, "b", "a")
            table["meta.sex"] = np.where(np.arange(len(table)) % 3, "f", "m")
            here = table["meta.site"] == "b"
            table["prediction"] = table["label"]
            wrong = here & (np.arange(len(table)) % (4 if arm == "arm" else 8) == 1)
            table.loc[wrong, "prediction"] = (table["label"] + 1) % 5
            return table

        rewrite(directory, known)
        (record,) = judged(directory).strategies
        by = {found["by"]: found for found in record["groups"]}
        assert by.keys() == {"site", "sex", "site x sex"}
        site = by["site"]
        assert site["transfer"]["worst"] == "b"
        assert site["transfer"]["gap"] == pytest.approx(0.5)
        assert site["scratch"]["gap"] == pytest.approx(38 / 150)
        assert site["added_gap"]["delta"] == pytest.approx(0.5 - 38 / 150)
        assert site["added_gap"]["reason"] == "degenerate"  # every seed alike: no interval
        assert set(by["site x sex"]["transfer"]["counts"]) == {"a x f", "a x m", "b x f", "b x m"}
        assert "Groups of images" in judge(directory).report.read_text()


class TestCalibration:
    def test_the_temperature_of_validation_serves_test(self, synthetic: Callable[..., Any]) -> None:
        directory = synthetic(seeds=2).write({5: [synthetic.SCRATCH]})
        random = np.random.default_rng(0)

        def sharp(table: pd.DataFrame, _: str) -> pd.DataFrame:
            """Logits that are three times too large for how often they are right."""
            logits = 2 * random.normal(size=(4000, 5))
            odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            labels = np.array([random.choice(5, p=p) for p in odds])
            tables = []
            for split, rows in (("test", slice(0, 2000)), ("validation", slice(2000, None))):
                part = pd.DataFrame({"label": labels[rows], "split": split, "log_prob": -1.0})
                part["item_id"] = [f"{split}-{n:05d}" for n in range(len(part))]
                part["prediction"] = logits[rows].argmax(1)
                part["logits"] = list((3 * logits[rows]).astype(np.float32))
                tables.append(part)
            return pd.concat(tables)

        rewrite(directory, sharp)
        (cell,) = cells(directory)
        table = calibration(cell, directory)
        assert table is not None
        ((_, ece, nll, temperature, after, nll_after, runs),) = table.rows
        assert float(temperature) == pytest.approx(3, abs=0.2)
        assert float(after) < 4 < float(ece)
        assert float(nll_after) < float(nll)
        assert runs == "2"

    def test_without_logits_there_is_nothing_to_scale(self, synthetic: Callable[..., Any]) -> None:
        directory = synthetic(seeds=2).write({5: [synthetic.SCRATCH]})
        rewrite(directory, lambda table, _: table.drop(columns="logits"))
        (cell,) = cells(directory)
        assert calibration(cell, directory) is None


class TestSizes:
    def test_a_curve_over_sizes_is_worth_images(self, synthetic: Callable[..., Any]) -> None:
        def plans(own: float, base: float) -> list[Any]:
            scratch = synthetic.Plan("scratch", "none", "scratch", "scratch", shift=base)
            return [scratch, synthetic.Plan("arm", shift=own)]

        directory = synthetic(seeds=6, noise=0.02).write(
            {5: plans(0.6, -1.0), 20: plans(0.8, 0.0), 80: plans(0.9, 0.9)}
        )
        (record,) = judged(directory).sizes
        assert record["sizes"] == [25, 100, 400]
        assert record["words"][:2] == ["positive", "positive"]
        assert record["words"][2] != "positive"
        assert record["crossover"] == {"last_positive": 100, "first_without": 400}
        first = record["equivalents"][0]
        assert 100 < first["transferred"] + 25 < 400
        assert record["slope"]["per_doubling"] < 0
        assert record["slope"]["p"] < 0.001
        page = judge(directory).report.read_text()
        assert "Over the size of the target" in page
        assert "up to 100 images, not shown from 400" in page

    def test_cells_that_differ_otherwise_are_no_curve(self, synthetic: Callable[..., Any]) -> None:
        plans = [synthetic.SCRATCH, synthetic.Plan("arm")]
        directory = synthetic(seeds=2).write({5: plans, 20: plans})
        path = directory / "study.json"
        record = json.loads(path.read_text())
        record["cells"][1]["values"]["backbone.name"] = "another"
        path.write_text(json.dumps(record))
        assert judged(directory).sizes == []


class TestSpeed:
    def test_steps_to_nearly_what_scratch_ends_at(self, synthetic: Callable[..., Any]) -> None:
        def curve(*scores: float) -> dict[str, Any]:
            steps = [
                {"step": 20 * n, "validation_accuracy": score} for n, score in enumerate(scores, 1)
            ]
            cost = {"fit_seconds": 10.0, "source_seconds": 24.0}
            return {"curve": steps, "cost": cost, "budget_steps": 100}

        base = synthetic.Plan(
            "scratch", "none", "scratch", "scratch", run=curve(0.1, 0.2, 0.5, 0.7, 0.8)
        )
        quick = synthetic.Plan("quick", run=curve(0.5, 0.77, 0.8, 0.8, 0.8))
        never = synthetic.Plan("never", run=curve(0.1, 0.1, 0.2, 0.3, 0.4))
        directory = synthetic(seeds=3).write({5: [base, quick, never]})
        table = speed_table(cells(directory)[0])
        assert table is not None
        rows = {row[0]: list(row[1:]) for row in table.rows}
        assert rows["scratch"][:3] == ["100", "10.0 s", "×1.00"]
        assert rows["quick"] == ["40", "4.0 s", "×2.50", "4 targets"]  # 24 s over 6 s a target
        assert rows["never"][:2] == ["> 100", "–"]


class TestFurtherTestSets:
    def test_each_set_has_verdicts_of_its_own(self, synthetic: Callable[..., Any]) -> None:
        directory = synthetic(seeds=6).write(
            {5: [synthetic.SCRATCH, synthetic.Plan("arm", shift=0.8)]}
        )
        study = json.loads((directory / "study.json").read_text())
        transfer = [entry["run_id"] for entry in study["cells"][0]["arms"][1]["runs"]]
        for folder in (directory / "runs").iterdir():
            run = json.loads((folder / "run.json").read_text())
            run["metrics"]["also_test"] = {"clinic": {"accuracy": 0.5}}
            (folder / "run.json").write_text(json.dumps(run))
            table = pd.read_parquet(folder / "predictions.parquet").iloc[:200]
            table["item_id"] = "clinic-" + table["item_id"]
            table = table.sort_values("item_id")
            table["label"] = np.arange(len(table)) % 5
            table["prediction"] = table["label"]
            if folder.name in transfer:  # what helps here hurts there
                seed = transfer.index(folder.name)
                table.iloc[: 60 + 3 * seed, table.columns.get_loc("prediction")] += 1
            table["item_id"] = [f"clinic-{n:04d}" for n in range(len(table))]
            table.to_parquet(folder / "predictions-clinic.parquet")
        found = judged(directory)
        assert [r["verdict"] for r in found.strategies] == ["positive"]
        (record,) = found.elsewhere
        assert (record["test_set"], record["verdict"]) == ("clinic", "negative")
        assert "tested on clinic" in record["sentence"]
        shutil.rmtree(directory / "runs" / transfer[0])
        assert judged(directory).elsewhere[0]["n_pairs"] == 5
