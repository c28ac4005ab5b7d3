"""A study of a composed source: what each of its parts adds, and what its arms forget."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

STUDY = """# @package _global_
defaults:
  - override /hydra/sweeper: study
name: mix
hydra: {mode: MULTIRUN}
study:
  arms:
    mixed: [source=mine, strategy=fine_tune, source.pretrain.budget.steps=4]
    letters: [source=few, strategy=fine_tune, source.pretrain.budget.steps=4]
  seeds: 2
  leave_one_out: true
"""
FEW = """defaults: [glyphs, _self_]
name: few
dataset: {per_class: 12}
"""
MINE = """defaults: [composed, _self_]
parts:
  few: {} # a source of the user's own, beside one that comes with the package
  noise: {dataset: {per_class: 12}}
"""


def test_every_part_is_left_out_at_equal_steps(cli, overrides, place: Path) -> None:
    for name, text in {"experiment/mix": STUDY, "source/few": FEW, "source/mine": MINE}.items():
        path = place / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    line = ("experiment=mix", "forgetting=true", "target.shots=5")
    result = cli("run", *overrides(*line))
    assert result.code == 0, result.err
    study = json.loads((place / "outputs/mix/study.json").read_text())
    arms = {arm["id"]: arm for arm in study["cells"][0]["arms"]}
    assert {name: (arm["role"], arm["of"], arm["without"]) for name, arm in arms.items()} == {
        "scratch": ("scratch", None, None),
        "mixed": ("transfer", None, None),
        "letters": ("transfer", None, None),
        "mixed without few": ("ablation", "mixed", "few"),
        "mixed without noise": ("ablation", "mixed", "noise"),
    }
    runs = {
        name: [
            json.loads((place / f"outputs/mix/runs/{run['run_id']}/run.json").read_text())
            for run in arm["runs"]
        ]
        for name, arm in arms.items()
    }
    sizes = {name: found[0]["source_size"] for name, found in runs.items()}
    assert sizes["scratch"] is None
    assert {name: size["steps"] for name, size in sizes.items() if size} == dict.fromkeys(
        [name for name in arms if name != "scratch"], 4
    )
    whole = sizes["mixed"]["images"]
    assert set(whole) == {"few", "noise"}
    assert sizes["mixed without few"]["images"] == {"noise": whole["noise"]}
    # what is left of two parts is the one: the same runs as those of the arm that names it
    assert arms["mixed without noise"]["runs"] == arms["letters"]["runs"]
    assert all(found[0]["forgetting"] is None for name, found in runs.items() if name == "scratch")
    for name in set(arms) - {"scratch"}:
        assert all(-1 <= run["forgetting"]["F_head"] <= 1 for run in runs[name])
