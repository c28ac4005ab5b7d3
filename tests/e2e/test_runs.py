"""Runs and grids from the command line, end to end on real and made images."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest
from PIL import Image
from safetensors.numpy import load_file
from sklearn.datasets import load_digits

from transferlab.analysis.load import read_items

FINE_TUNE = ("source=glyphs", "target=digits", "target.shots=5", "strategy=fine_tune", "seed=1")


def record(folder: Path) -> dict[str, Any]:
    (path,) = (folder / "runs").glob("*/run.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("runs/*/run.json"))]


def directory(folder: Path) -> Path:
    (path,) = (folder / "runs").iterdir()
    return path


def stamps(folder: Path, name: str = "run.json") -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.glob(f"runs/*/{name}")}


def test_a_run_made_twice_in_two_places_is_the_same_to_the_last_bit(
    cli, overrides, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("run", *FINE_TUNE, *overrides("budget.steps=30", glyphs=True))
    for name in ("a", "b"):
        monkeypatch.setenv("TRANSFERLAB_CACHE", str(tmp_path / f"cache-{name}"))
        assert cli(*line, f"output_dir={name}").code == 0
    a, b = record(Path("a")), record(Path("b"))
    assert a["run_id"] == b["run_id"]
    assert a["source_id"] == b["source_id"]
    assert a["metrics"] == b["metrics"]
    assert a["curve"] == b["curve"]
    left, right = directory(Path("a")), directory(Path("b"))
    predictions = parquet.read_table(left / "predictions.parquet")
    assert predictions.equals(parquet.read_table(right / "predictions.parquet"))
    weights = load_file(left / "checkpoints/last.safetensors")
    other = load_file(right / "checkpoints/last.safetensors")
    assert weights.keys() == other.keys()
    assert all(np.array_equal(weights[key], other[key]) for key in weights)


def test_a_run_that_is_done_is_not_made_again(cli, overrides, place: Path) -> None:
    line = ("run", *FINE_TUNE, *overrides("budget.steps=30", "trainer.precision=auto", glyphs=True))
    assert cli(*line).code == 0
    folder = place / "outputs/default"
    before, tracked = stamps(folder), stamps(folder, "metrics.jsonl")
    again = cli(*line)
    assert (again.code, again.err) == (0, "")
    assert record(folder)["run_id"] in again.out
    assert (stamps(folder), stamps(folder, "metrics.jsonl")) == (before, tracked)


def test_one_scratch_run_serves_every_source(cli, overrides, place: Path, shared_cache) -> None:
    made = set()
    sources = len(list((shared_cache / "runs").glob("*")))
    for source in ("glyphs", "noise", "none"):
        line = ("run", f"source={source}", "strategy=scratch", "target.shots=5")
        more = () if source == "none" else ("source.dataset.per_class=12",)
        assert cli(*line, *overrides("budget.steps=24", *more)).code == 0
        made |= set((place / "outputs/default/runs").iterdir())
    assert len(made) == 1
    assert record(place / "outputs/default")["source"] == "none"
    assert len(list((shared_cache / "runs").glob("*"))) == sources  # nothing was pretrained


def test_dry_run_trains_nothing(cli, overrides, place: Path) -> None:
    one = cli("run", *FINE_TUNE, *overrides(glyphs=True), "--dry-run")
    assert (one.code, one.err) == (0, "")
    assert "12 steps of 8" in one.out
    line = ("run", "-m", "strategy=scratch,fine_tune", "source=glyphs", "seed=0,1", "--dry-run")
    grid = cli(*line, *overrides("target.shots=5", glyphs=True))
    assert grid.code == 0
    assert "a true difference of" in grid.out
    assert "4 runs" in grid.out
    assert not list(place.rglob("run.json"))
    assert not list(place.rglob("study.json"))


@pytest.mark.parametrize("command", ["", "run", "report", "status", "predict"])
def test_help_says_how_to_use_a_command(command: str, cli) -> None:
    result = cli(*([command] if command else []), "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(("usage:", "transferlab "))
    assert f"transferlab {command}".strip() in result.out


def test_a_user_s_own_choice_is_found_in_conf_and_elsewhere(cli, overrides, place: Path) -> None:
    for folder in ("conf", "more"):
        (place / folder / "head").mkdir(parents=True)
        path = place / folder / "head" / f"wide_{folder}.yaml"
        path.write_text("_target_: transferlab.heads.mlp.MLPHead\nhidden: 8\ndropout: 0.0\n")
    line = overrides("target.shots=5", "budget.steps=30")
    assert cli("run", "head=wide_conf", *line).code == 0
    assert cli("run", "--config-dir", "more", "head=wide_more", *line).code == 0
    assert {run["head"] for run in records(place / "outputs/default")} == {"MLPHead"}


def test_a_class_of_the_user_s_own_is_found_beside_conf(cli, overrides, place: Path) -> None:
    (place / "conf/head").mkdir(parents=True)
    (place / "conf/head/own.yaml").write_text("_target_: own_heads.Own\n")
    (place / "own_heads.py").write_text(
        "from transferlab.heads.linear import LinearHead\nclass Own(LinearHead): pass\n"
    )
    line = ("run", "head=own", *overrides("target.shots=5", "budget.steps=30"))
    refused = cli(*line)
    assert (refused.code, len(refused.lines)) == (2, 1)
    assert "add allowed_packages=[own_heads]" in refused.err
    assert cli(*line, "allowed_packages=[own_heads]").code == 0
    assert [run["head"] for run in records(place / "outputs/default")] == ["Own"]


def test_overrides_may_stand_on_both_sides_of_a_flag(cli, overrides, place: Path) -> None:
    line = overrides("target.shots=5", "name=sides", "budget.steps=30")
    assert cli("run", "strategy=scratch", "-m", "seed=0,1", *line).code == 0
    assert sorted(run["seed"] for run in records(place / "outputs/sides")) == [0, 1]


def test_fine_tuning_from_nothing_says_that_it_is_scratch(cli, overrides, place: Path) -> None:
    line = overrides("target.shots=5", "source=none", "budget.steps=30")
    result = cli("run", "strategy=fine_tune", *line)
    assert ": scratch on digits" in result.out
    again = cli("run", "strategy=scratch", *line)
    assert again.out == result.out


class TestGrid:
    """``-m`` is a study without tuning."""

    line = ("run", "-m", "strategy=scratch,feature_extraction,fine_tune", "source=glyphs")

    @pytest.fixture
    def grid(self, cli, overrides) -> tuple[str, ...]:
        more = overrides("target.shots=5", "name=grid", glyphs=True)
        return (*self.line, "seed=0,1,2", *more)

    @pytest.mark.slow
    def test_a_grid_and_its_report(self, cli, grid, overrides, place: Path) -> None:
        assert cli(*grid).code == 0
        folder = place / "outputs/grid"
        assert len(records(folder)) == 9
        (folder / "report.html").unlink()
        result = cli("report", folder)
        assert (result.code, result.err) == (0, "")
        assert "<html" in (folder / "report.html").read_text()
        found = json.loads((folder / "verdicts.json").read_text())["verdicts"]
        assert {v["strategy"] for v in found} == {"feature_extraction", "fine_tune"}
        assert {v["verdict"] for v in found} == {"inconclusive"}  # an untuned comparison
        assert all("untuned" in v["flags"] for v in found)

        before = stamps(folder)
        verdicts = (folder / "verdicts.json").read_bytes()
        assert cli(*grid).code == 0
        assert stamps(folder) == before
        assert (folder / "verdicts.json").read_bytes() == verdicts
        more = overrides("target.shots=5", "name=grid", glyphs=True)
        assert cli(*self.line, "seed=0,1,2,3", *more).code == 0
        after = stamps(folder)
        assert len(after) == 12
        assert {path: after[path] for path in before} == before

    def test_a_grid_without_a_name_goes_on_in_its_own_folder(
        self, cli, overrides, place: Path
    ) -> None:
        line = ("run", "-m", "strategy=scratch,fine_tune", *overrides("target.shots=5"))
        assert cli(*line, "seed=0,1").code == 0
        (folder,) = (place / "outputs").iterdir()
        assert folder.name.startswith("grid-")
        before = stamps(folder)
        assert cli(*line, "seed=0,1").code == 0
        assert list((place / "outputs").iterdir()) == [folder]
        assert stamps(folder) == before


class TestOwnImages:
    """Folders, tables and Parquet files that the test makes."""

    def test_a_folder_of_classes(self, cli, overrides, place: Path, draw_classes) -> None:
        draw_classes(place / "pictures")
        line = overrides("target=image_folder", "target.root=pictures")
        assert cli("run", *line).code == 0
        found = record(place / "outputs/default")
        assert (found["target"], found["classes"]) == ("pictures", ["ant", "bee"])
        assert found["metrics"]["test"]["accuracy"] > 0.8

    def test_a_table(self, cli, overrides, place: Path, draw_classes) -> None:
        files = draw_classes(place / "pictures")
        with (place / "list.csv").open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(["path", "label"])
            table.writerows([path.relative_to(place), path.parent.name] for path in files)
        line = overrides("target=table", "target.dataset.path=list.csv", "target.name=mine")
        assert cli("run", *line).code == 0
        found = record(place / "outputs/default")
        assert (found["target"], found["classes"]) == ("mine", ["ant", "bee"])

    def test_parquet_files(self, cli, overrides, place: Path, draw_classes) -> None:
        files = draw_classes(place / "pictures")
        (place / "data").mkdir()
        rows = [
            {"image": {"bytes": path.read_bytes(), "path": path.name}, "label": path.parent.name}
            for path in files
        ]
        pd.DataFrame(rows).to_parquet(place / "data/images.parquet")
        assert cli("run", *overrides("target=parquet", "target.root=data")).code == 0
        assert record(place / "outputs/default")["classes"] == ["ant", "bee"]

    def test_official_splits_are_honoured(self, cli, overrides, place: Path, draw_classes) -> None:
        for turns, (split, each) in enumerate((("train", 9), ("val", 4), ("test", 5))):
            for path in draw_classes(place / f"set/{split}", each=each):
                pixels = np.rot90(np.array(Image.open(path)), turns)  # no two splits share an image
                Image.fromarray(pixels).save(path)
        assert cli("run", *overrides("target=image_folder", "target.root=set")).code == 0
        found = record(place / "outputs/default")
        assert [found[f"n_{part}"] for part in ("train", "validation", "test")] == [18, 8, 10]
        table = parquet.read_table(directory(place / "outputs/default") / "predictions.parquet")
        for item, split in zip(
            table["item_id"].to_pylist(), table["split"].to_pylist(), strict=True
        ):
            assert item.startswith({"test": "test/", "validation": "val/"}[split])

    def test_groups_reach_the_verdict_whole(
        self, cli, overrides, place: Path, draw_classes
    ) -> None:
        for path in draw_classes(place / "pictures", each=30):
            number = int(path.stem)
            path.rename(path.with_name(f"p{path.parent.name}{number // 3:03d}_{number % 3}.png"))
        line = ("run", "-m", "strategy=scratch,fine_tune", "source=glyphs", "seed=0,1,2")
        data = ("target=image_folder", "target.root=pictures", "target.group_by=prefix")
        assert cli(*line, *overrides(*data, "name=grouped", glyphs=True)).code == 0
        folder = place / "outputs/grouped"
        (verdict,) = json.loads((folder / "verdicts.json").read_text())["verdicts"]
        first = next((folder / "runs").iterdir())
        table = parquet.read_table(first / "predictions.parquet").to_pandas()
        test = table[table["split"] == "test"]
        groups = test["item_id"].str.extract(r"(p\w+)_")[0].nunique()
        assert groups * 3 == len(test)  # a group lies on one side of the split
        assert verdict["test"]["M"] == len(test)
        answers = read_items(folder, first.name)  # what the verdict is made from
        assert answers.groups is not None
        assert len(set(answers.groups)) == groups


class TestPredict:
    """``transferlab predict`` labels files as the run labelled them in its test."""

    @pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
    def test_it_reproduces_the_run_s_own_test_predictions(
        self, precision: str, cli, overrides, place: Path
    ) -> None:
        line = overrides("target=digits", "target.shots=5", "budget.steps=40")
        assert cli("run", *line, f"trainer.precision={precision}").code == 0
        run = directory(place / "outputs/default")
        table = parquet.read_table(run / "predictions.parquet").to_pandas()
        test = table[table["split"] == "test"].sort_values("item_id")
        digits = load_digits()
        for item in test["item_id"]:
            grey = np.rint(digits.images[int(Path(item).name)] * 255 / 16).astype(np.uint8)
            path = place / "digits" / f"{item}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey).save(path)
        assert cli("predict", run, "digits").code == 0
        found = pd.read_csv(place / "predictions.csv", dtype={"prediction": str})
        found.index = pd.Index([path[len("digits/") : -len(".png")] for path in found["path"]])
        found = found.loc[list(test["item_id"])]
        classes = record(place / "outputs/default")["classes"]
        assert [classes.index(name) for name in found["prediction"]] == list(test["prediction"])
        told = found[[f"p({name})" for name in classes]].to_numpy()
        own = told[np.arange(len(test)), test["label"].to_numpy()]
        np.testing.assert_allclose(own, np.exp(test["log_prob"]), atol=2e-5)

    def test_files_and_folders_and_another_output(
        self, cli, overrides, place: Path, draw_classes
    ) -> None:
        files = draw_classes(place / "pictures")
        line = overrides("target=image_folder", "target.root=pictures")
        assert cli("run", *line).code == 0
        run = directory(place / "outputs/default")
        result = cli("predict", run, files[0], "pictures/bee", "--output", "out/labels.csv")
        assert (result.code, result.err) == (0, "")
        table = pd.read_csv(place / "out/labels.csv")
        assert list(table.columns) == ["path", "prediction", "probability", "p(ant)", "p(bee)"]
        assert len(table) == 13


def test_status_counts_what_lies_in_a_folder(cli, overrides, place: Path) -> None:
    line = ("run", "-m", "strategy=scratch,fine_tune", *overrides("target.shots=5", "name=s"))
    assert cli(*line, "seed=0,1").code == 0
    folder = place / "outputs/s"
    assert "done" in cli("status", folder).out
    runs = sorted((folder / "runs").iterdir())
    (runs[0] / "run.json").unlink()
    told = cli("status", folder)
    assert told.code == 0
    assert "1 queued" in told.out
