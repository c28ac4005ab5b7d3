"""What a study's trackers get, when, and what they never get."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from transferlab.analysis.judge import Judgement
from transferlab.study.tracking import track, tracked_study

CELL, ARM = "target.shots=5", "fine_tune from glyphs"
VERDICT = {
    "cell": CELL, "arm": ARM, "source": "glyphs", "target": "digits", "shots": 5,
    "backbone": "test_resnet", "strategy": "fine_tune", "verdict": "positive",
}  # fmt: skip


@pytest.fixture
def judged(tmp_path: Path) -> Any:
    """Write a judged study whose runs stand in two cells."""

    def make(*gains: float, name: str = "mystudy", status: str = "done") -> Judgement:
        arms = [
            {"id": "scratch", "runs": [{"seed": s, "run_id": f"s{s}"} for s in (0, 1)]},
            {"id": ARM, "runs": [{"seed": s, "run_id": f"t{s}"} for s in (0, 1)]},
        ]
        cells = [{"id": CELL, "arms": arms}, {"id": "own best", "arms": arms}]
        keys = [{"seed": seed} for seed, _ in enumerate(gains)]
        first = VERDICT | {"replicate_keys": keys, "per_replicate_delta": list(gains)}
        verdicts = (first, first | {"cell": "own best", "per_replicate_delta": [9.0 for _ in keys]})
        texts = {"study.json": {"name": name, "cells": cells}, "verdicts.json": {"summary": "One."}}
        for file, content in texts.items():
            (tmp_path / file).write_text(json.dumps(content))
        (tmp_path / "report.html").write_text("<p>One.</p>")
        with (tmp_path / "verdicts.csv").open("w") as stream:
            writer = csv.DictWriter(stream, VERDICT.keys())
            writer.writeheader()
            writer.writerow(VERDICT)
        runs = ({"run_id": "t0", "status": "done"}, {"run_id": "t1", "status": status})
        return Judgement(name, True, verdicts, runs, tmp_path / "report.html", "", ())

    return make


def test_gains_are_told_by_run_and_cell(judged: Any, tmp_path: Path) -> None:
    study = tracked_study(tmp_path, judged(0.25, -0.5))
    rows = study.gains[["run_id", "seed", "gain", "cell"]].to_numpy().tolist()
    assert rows[:2] == [["t0", 0, 0.25, CELL], ["t1", 1, -0.5, CELL]]
    assert [row[2] for row in rows[2:]] == [9.0, 9.0]
    assert study.gain_by_run() == {"t0": 0.25, "t1": -0.5}, "of the first cell"
    assert set(study.gains.columns) > {"source", "target", "shots", "strategy"}
    assert list(study.verdicts["arm"]) == [ARM]


def test_a_study_without_pairs_has_no_gains(judged: Any, tmp_path: Path) -> None:
    study = tracked_study(tmp_path, judged())
    assert study.gain_by_run() == {}
    assert len(study.verdicts) == 1


def test_the_report_stays_here_where_it_tells_why_a_run_failed(judged: Any, tmp_path: Path) -> None:
    assert tracked_study(tmp_path, judged(0.1)).page == tmp_path / "report.html"
    assert tracked_study(tmp_path, judged(0.1, status="diverged")).page is not None
    assert tracked_study(tmp_path, judged(0.1, status="failed")).page is None


def test_a_study_is_one_tracked_run_whatever_its_seeds(judged: Any, tmp_path: Path) -> None:
    one, more = (tracked_study(tmp_path, judged(*gains)) for gains in ((0.1,), (0.1, 0.2)))
    assert one.run_id == more.run_id
    assert tracked_study(tmp_path, judged(0.1, name="other")).run_id != one.run_id


def settings(**trackers: str) -> DictConfig:
    nodes = {name: {"_target_": target} for name, target in trackers.items()}
    return OmegaConf.create({"tracker": nodes or None})


def test_what_failed_is_sent_later_and_what_was_sent_is_not_again(
    judged: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    cfg = settings(tensorboard="transferlab.trackers.tensorboard.TensorBoard")
    (tmp_path / "tensorboard").write_text("a file is in the way")
    track(cfg, tmp_path, judged(0.1))
    (line,) = capsys.readouterr().err.splitlines()
    assert "tracker tensorboard failed at the study's verdicts" in line
    assert str(tmp_path) in line

    (tmp_path / "tensorboard").unlink()
    track(cfg, tmp_path, judged(0.1))
    track(cfg, tmp_path, judged(0.1))
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    track(cfg, tmp_path, judged(0.1, 0.2))
    assert sum(p.stat().st_size for p in (tmp_path / "tensorboard").iterdir()) > 0
    assert capsys.readouterr().err == ""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert len(events.Tensors("verdicts/text_summary")) == 2, "once for each judgement"


def test_a_study_without_trackers_sends_nothing(judged: Any, tmp_path: Path) -> None:
    judgement = judged(0.1)
    before = sorted(tmp_path.iterdir())
    track(settings(), tmp_path, judgement)
    assert sorted(tmp_path.iterdir()) == before
