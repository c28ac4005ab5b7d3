"""Studies that look more than once, tune in each replicate, or let arms choose their budget."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from transferlab import precision

pytestmark = pytest.mark.slow

STUDY = """# @package _global_
defaults:
  - override /target: digits
  - override /backbone: test_resnet
  - override /hydra/sweeper: study
name: plan
batch_size: 8
budget: {{steps: 24}}
backbone: {{image_size: 16}}
target: {{shots: 5, max_validation: 40}}
trainer: {{accelerator: cpu, threads: 1, validations: 1}}
hydra: {{mode: MULTIRUN}}
study:
  arms: {{fine_tune: [source=glyphs, source.dataset.per_class=12,
    source.pretrain.budget.steps=4, strategy=fine_tune]}}
{study}
"""


def conduct(cli: Any, place: Path, study: str, *overrides: str) -> dict[str, Any]:
    path = place / "conf/experiment/plan.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = STUDY.format(study="\n".join(f"  {line}" for line in study.strip().splitlines()))
    path.write_text(text)
    result = cli("run", "experiment=plan", *overrides)
    assert result.code == 0, result.err
    return {
        "study": json.loads((place / "outputs/plan/study.json").read_text()),
        "verdicts": json.loads((place / "outputs/plan/verdicts.json").read_text())["verdicts"],
        "out": result.out,
    }


GRID = "tune: {grid: {optimizer.lr: [0.003, 0.01, 0.03]}, extend: 0}"


def seeds(arm: dict[str, Any]) -> list[int]:
    return [run["seed"] for run in arm["runs"]]


def test_a_study_that_is_settled_stops_at_its_look(cli: Any, place: Path) -> None:
    text = f"{GRID}\nseeds: 4\nlooks: [2, 4]\nverdict: {{metric: accuracy, margin: 0.99}}"
    found = conduct(cli, place, text)
    (cell,) = found["study"]["cells"]
    assert [seeds(arm) for arm in cell["arms"]] == [[0, 1]] * len(cell["arms"])
    (verdict,) = found["verdicts"]
    assert verdict["verdict"] == "equivalent"
    assert verdict["look"] == {"index": 1, "of": 2, "seeds": 2, "alpha": 0.025}


def test_an_open_family_is_extended_whole(
    cli: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transferlab.study.conduct.undecided", lambda _: True)
    text = f"{GRID}\nseeds: 3\nlooks: [2, 3]\nverdict: {{metric: accuracy, margin: 0.99}}"
    found = conduct(cli, place, text)
    (cell,) = found["study"]["cells"]
    assert [seeds(arm) for arm in cell["arms"]] == [[0, 1, 2]] * len(cell["arms"])
    assert found["verdicts"][0]["look"]["index"] == 2
    assert found["verdicts"][0]["n_pairs"] == 3


def test_each_replicate_may_be_tuned_by_itself(cli: Any, place: Path) -> None:
    text = (
        "tune: {grid: {optimizer.lr: [0.003, 0.01, 0.03]}, per: replicate, extend: 0}\n"
        "seeds: 2\nverdict: {metric: accuracy}"
    )
    found = conduct(cli, place, text)
    splits: dict[int, set[tuple[str, str]]] = {}
    for arm in found["study"]["cells"][0]["arms"]:
        tuning = arm["tuning"]
        assert (tuning["per"], tuning["seeds"], tuning["trials"]) == ("replicate", [0, 1], 3)
        for position, run in enumerate(arm["runs"]):
            record = json.loads(
                (place / "outputs/plan/runs" / run["run_id"] / "run.json").read_text()
            )
            place_of = (record["split_sha256"], record["test_ids_sha256"])
            splits.setdefault(run["seed"], set()).add(place_of)
            scored = {s["settings"]["optimizer.lr"]: s["validation"][position]
                      for s in tuning["scores"]}  # fmt: skip
            assert record["lr"] == max(scored, key=lambda lr: (scored[lr], -lr))
            assert tuning["best_by_seed"][str(run["seed"])] == {"optimizer.lr": record["lr"]}
    (first,), (second,) = splits[0], splits[1]  # one split a replicate, the same for every arm
    assert first[0] != second[0]
    assert first[1] == second[1]
    (verdict,) = found["verdicts"]
    assert verdict["reason"] != "tuning_seeds_overlap"
    assert "validation_shared" not in verdict["flags"]
    assert verdict["tuned_per"] == "replicate"
    assert "these settings" not in verdict["sentence"]


def test_seeds_for_shared_tuning_are_refused_where_none_is_shared(cli: Any, place: Path) -> None:
    path = place / "conf/experiment/plan.yaml"
    path.parent.mkdir(parents=True)
    study = "  tune: {grid: {optimizer.lr: [0.01]}, per: replicate, seeds: 3}"
    path.write_text(STUDY.format(study=study))
    result = cli("run", "experiment=plan")
    assert result.code == 2
    assert "study.tune.seeds=3 with study.tune.per=replicate" in result.err


def test_arms_may_choose_their_own_budget_beside_equal_steps(cli: Any, place: Path) -> None:
    text = f"{GRID}\nseeds: 2\nown_best: [12, 24]\nverdict: {{metric: accuracy}}"
    found = conduct(cli, place, text)
    equal, own = found["study"]["cells"]
    assert (equal["budget"], own["budget"]) == ("equal", "own_best")
    assert own["own_best_of"] == equal["id"]
    for arm in own["arms"]:
        assert arm["tuning"]["grid"]["budget.steps"] == [12, 24]
        assert arm["tuning"]["trials"] == 2 * equal["arms"][0]["tuning"]["trials"]
    assert [v["budget"]["kind"] for v in found["verdicts"]] == ["equal", "own_best"]
    assert all(v["reason"] != "unequal_steps" for v in found["verdicts"])


def test_arms_of_other_batch_sizes_have_one_precision(
    cli: Any, place: Path, monkeypatch: pytest.MonkeyPatch, fresh_cache: Path
) -> None:
    """And the source of them all is pretrained once, before they are."""

    def timed(cfg: Any, device: Any, images: int) -> dict[str, float]:
        del cfg, device
        return {precision.PLAIN: 1.0, precision.MIXED: 0.5 if images == 8 else 2.0}

    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(precision, "timed", timed)
    sources = "source.dataset.per_class=12", "source.pretrain.budget.steps=4"
    arm = [f"'{part}'" for part in ("source=glyphs", *sources, "batch_size=12")]
    conduct(cli, place, "seeds: 2", f"+study.arms.large=[{','.join(arm)}]")
    made = [*place.glob("outputs/plan/runs/*"), *(fresh_cache / "runs").iterdir()]
    found = [OmegaConf.load(run / "config.yaml") for run in made]
    assert {cfg.trainer.precision for cfg in found} == {precision.MIXED}
    assert sorted(cfg.batch_size for cfg in found) == [8, 8, 8, 8, 12, 12, 64]


def test_own_budgets_need_tuning(cli: Any, place: Path) -> None:
    path = place / "conf/experiment/plan.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(STUDY.format(study="  own_best: [12, 24]"))
    result = cli("run", "experiment=plan")
    assert result.code == 2
    assert "study.own_best=[12, 24]: a budget is chosen by tuning" in result.err
