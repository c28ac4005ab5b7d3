"""Cards hold to their schema, are the same for the same records, and move with the data."""

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator, ValidationError
from PIL import Image

from transferlab import split_data
from transferlab.analysis.arms import cells_of
from transferlab.analysis.card import energy_of, run_card, study_card, write_card
from transferlab.analysis.judge import judge
from transferlab.analysis.load import load_study
from transferlab.planning import Plan
from transferlab.records import sha256_record
from transferlab.run import execute

MakePlan = Callable[..., Plan]
HEX = "a" * 64


def validator(name: str) -> Draft202012Validator:
    text = (files("transferlab.analysis") / "schemas" / f"{name}.schema.json").read_text()
    schema = json.loads(text)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.fixture
def study(synthetic: Any) -> Path:
    """Six arms with every field that runs record today."""
    energy = {"kwh": 0.25, "co2e_kg": 0.1, "how": "estimated", "by": "4 W assumed"}
    more = {
        "test_ids_sha256": HEX, "data_fingerprint": HEX, "train_ids_sha256": HEX,
        "transforms_sha256": HEX, "weights": {"file": "checkpoints/x", "sha256": HEX},
        "licences": {"target": "CC-BY-4.0", "source": None, "backbone": "MIT", "also_test": {}},
        "cost": {"fit_seconds": 1.0, "energy": energy},
        "environment": {"commit": "c0ffee", "hardware": "2 cores", "torch": "2.13.0"},
    }  # fmt: skip
    arms = [replace(plan, run=more) for plan in synthetic.FAMILY]
    arms[3] = replace(arms[3], diverged=(1,), missing=(2,))
    writer = synthetic("digits", seeds=5)
    folder: Path = writer.write({5: arms, 20: arms})
    return folder


def card_of(folder: Path) -> dict[str, Any]:
    judge(folder)
    verdicts = json.loads((folder / "verdicts.json").read_text())["verdicts"]
    found = load_study(folder)
    return study_card(found, cells_of(found), verdicts)


def test_verdicts_hold_to_their_schema(study: Path, synthetic: Any) -> None:
    judge(study)
    record = json.loads((study / "verdicts.json").read_text())
    check = validator("verdict")
    every = [own for key in ("verdicts", "source_verdicts", "part_verdicts")
             for own in record.get(key, [])]  # fmt: skip
    assert len(every) >= 8
    for own in every:
        check.validate(own)
    alone = synthetic("alone").write({5: [synthetic.Plan("fine_tune from glyphs")]})
    judge(alone)
    (lost,) = json.loads((alone / "verdicts.json").read_text())["verdicts"]
    assert lost["verdict"] == "not_assessable"
    check.validate(lost)


@pytest.mark.parametrize(
    ("field", "value"),
    [("verdict", "harmful"), ("p_sign", 1.5), ("scope", None), ("card_hash", "x"), ("ci95", [0])],
)
def test_the_verdicts_schema_refuses_what_is_wrong(study: Path, field: str, value: Any) -> None:
    judge(study)
    own = json.loads((study / "verdicts.json").read_text())["verdicts"][0]
    with pytest.raises(ValidationError):
        validator("verdict").validate(own | {field: value})
    with pytest.raises(ValidationError):
        validator("verdict").validate({k: v for k, v in own.items() if k != field})


def test_a_studys_card_is_whole_and_comes_back_as_it_went(study: Path) -> None:
    card = card_of(study)
    found = load_study(study)
    verdicts = json.loads((study / "verdicts.json").read_text())["verdicts"]
    assert write_card(found, cells_of(found), verdicts) == card
    text = (study / "card.json").read_text()
    assert json.loads(text) == card
    validator("card").validate(json.loads(text))
    seal = card.pop("card_sha256")
    assert seal == sha256_record(card)
    assert [own["card_hash"] for own in card["verdicts"]] == [own["card_hash"] for own in verdicts]
    assert len(card["arms"]) == 12
    runs = [run for arm in card["arms"] for run in arm["runs"]]
    assert len(runs) == 12 * 5 - 2, "two left no record"
    assert card["energy"]["kwh"] == pytest.approx(0.25 * len(runs))
    assert (card["energy"]["how"], card["energy"]["runs_unstated"]) == ("estimated", 0)
    assert card["commits"] == ["c0ffee"]
    assert {own["licence"] for own in card["sources"]} == {"unknown", "none"}
    readable = (study / "card.md").read_text()
    for own in verdicts:
        assert own["sentence"] in readable
    assert "CC-BY-4.0" in readable


def test_what_old_records_do_not_say_is_unknown(synthetic: Any) -> None:
    folder = synthetic("old", seeds=5).write({5: synthetic.FAMILY})
    card = card_of(folder)
    assert {own["licence"] for own in card["targets"]} == {"unknown"}
    assert card["energy"] == {
        "kwh": None, "co2e_kg": None, "how": "unknown", "by": [], "runs": 0, "runs_unstated": 30,
    }  # fmt: skip
    assert card["commits"] == ["unknown"]


def test_measured_and_estimated_energies_are_told_apart() -> None:
    own = {"kwh": 1.0, "co2e_kg": 0.5, "how": "measured", "by": "a"}
    costs = [{"energy": own}, {"energy": own | {"how": "estimated", "by": "b"}}, {}]
    found = energy_of(costs)
    assert (found["kwh"], found["how"], found["by"]) == (2.0, "mixed", ["a", "b"])
    assert (found["runs"], found["runs_unstated"]) == (2, 1)


def draw(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for index, name in enumerate(("ant", "bee")):
        (root / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(120 * index, 120 * index + 100, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.bmp")
    return root


def test_a_runs_card_moves_with_one_byte_of_its_data(make_plan: MakePlan, tmp_path: Path) -> None:
    root = draw(tmp_path / "images")
    line = ("target=image_folder", f"target.root={root}", "backbone.image_size=16",
            "target.group_by=none", "target.shots=3", "strategy=scratch")  # fmt: skip
    cards = []
    for byte in (0, 1, 0):
        path = root / "ant" / "0.bmp"
        content = bytearray(path.read_bytes())
        content[-1] ^= byte  # the lowest bit of one pixel
        path.write_bytes(content)
        split_data._open.cache_clear()  # a process reads a folder once
        plan = make_plan(*line)
        execute(plan)
        cards.append(json.loads((plan.directory / "card.json").read_text()))
        validator("card").validate(cards[-1])
    assert cards[0]["target"]["fingerprint"] != cards[1]["target"]["fingerprint"]
    assert cards[0]["card_sha256"] != cards[1]["card_sha256"]


def test_a_runs_card_is_its_records(make_plan: MakePlan) -> None:
    plan = make_plan("source=glyphs", "source.dataset.per_class=10",
                     "source.pretrain.budget.steps=2")  # fmt: skip
    record = execute(plan)
    card = json.loads((plan.directory / "card.json").read_text())
    validator("card").validate(card)
    assert card == run_card(json.loads((plan.directory / "run.json").read_text()))
    assert card["weights"] == record["weights"]
    assert card["source"]["fingerprint"] == record["source_fingerprint"] != "unknown"
    assert sum(card["source"]["composition"]["classes"]["train"].values()) > 0
    assert card["label_map"]["9"] == "9"
    text = (plan.directory / "card.md").read_text()
    for part in (card["weights"]["sha256"], "CC-BY-4.0", "Bitstream-Vera", card["card_sha256"]):
        assert part in text
    kept_none = make_plan("checkpoint.keep=none", "seed=3")
    execute(kept_none)
    assert not (kept_none.directory / "card.json").exists()
