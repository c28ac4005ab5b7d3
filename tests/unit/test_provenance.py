"""Licences, composition, columns: recorded, checked, and never part of what names a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig
from PIL import Image

from transferlab.errors import UserError
from transferlab.planning import Plan
from transferlab.provenance import check_licences, licences
from transferlab.run import execute, made

MakePlan = Callable[..., Plan]
Compose = Callable[..., DictConfig]


def test_embedded_data_state_their_licences(make_plan: MakePlan) -> None:
    plan = make_plan("source=glyphs", "source.dataset.per_class=10",
                     "source.pretrain.budget.steps=2")  # fmt: skip
    found = plan.notes["licences"]
    assert found["target"] == "CC-BY-4.0"
    assert "Bitstream-Vera" in found["source"].split(" AND ")
    assert found["backbone"] == "Apache-2.0"


@pytest.mark.parametrize(
    ("overrides", "source", "backbone"),
    [
        (("source=none",), None, "Apache-2.0"),
        (("source=published",), "apache-2.0", "apache-2.0"),
        (("source=published", "backbone=timm", "backbone.name=resnet50",
          "source.tag=fb_swsl_ig1b_ft_in1k"), "cc-by-nc-4.0", "cc-by-nc-4.0"),
        (("source=published", "backbone.licence=MIT"), "MIT", "MIT"),
        (("source=checkpoint", "source.path=x"), "unknown", "Apache-2.0"),
        (("source=checkpoint", "source.path=x", "source.licence=CC0-1.0"), "CC0-1.0",
         "Apache-2.0"),
        (("source=none", "backbone=module", "backbone.module._target_=torch.nn.Identity"), None,
         "unknown"),
    ],
)  # fmt: skip
def test_weights_have_the_licence_of_who_publishes_them(
    compose: Compose, overrides: tuple[str, ...], source: str | None, backbone: str
) -> None:
    found = licences(compose(*overrides), {})
    assert (found["source"], found["backbone"]) == (source, backbone)


def test_a_composed_source_is_under_the_licences_of_its_parts(compose: Compose) -> None:
    cfg = compose("source=composed", "source.parts=[digits,glyphs]")
    assert set(licences(cfg, {})["source"].split(" AND ")) > {"CC-BY-4.0", "Bitstream-Vera"}


def found(**terms: Any) -> dict[str, Any]:
    plain = {"target": "MIT", "source": None, "backbone": "MIT", "also_test": {}}
    return plain | terms


def test_allowed_licences_are_compared_part_by_part_in_any_case() -> None:
    check_licences(found(target="unknown"), None)
    check_licences(found(source="mit AND Apache-2.0"), ["MIT", "APACHE-2.0"])
    with pytest.raises(UserError, match=r"'GPL-3\.0-only' is not in allowed_licences"):
        check_licences(found(source="MIT AND GPL-3.0-only"), ["MIT"])


@pytest.mark.parametrize(
    ("terms", "key"),
    [
        ({"target": "unknown"}, "target.licence=unknown"),
        ({"source": "CC-BY-NC-4.0"}, "source.licence=CC-BY-NC-4.0"),
        ({"backbone": "unknown"}, "backbone.licence=unknown"),
        ({"also_test": {"B": "unknown"}}, "target.also_test.B.licence=unknown"),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(terms: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError) as caught:
        check_licences(found(**terms), ["MIT"])
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


def test_terms_are_checked_before_training_and_name_the_sources_option(
    make_plan: MakePlan,
) -> None:
    with pytest.raises(UserError, match=r"`target\.licence=CC-BY-4\.0`"):
        make_plan("allowed_licences=[MIT]")
    with pytest.raises(UserError, match=r"`source\.licence=Bitstream-Vera AND"):
        make_plan("source=glyphs", "source.pretrain.budget.steps=2",
                  "allowed_licences=[CC-BY-4.0,Apache-2.0]")  # fmt: skip
    make_plan("allowed_licences=[CC-BY-4.0,Apache-2.0]")


def test_what_is_only_recorded_names_no_run(make_plan: MakePlan) -> None:
    plain = make_plan()
    for more in (
        "target.licence=MIT", "target.near_duplicates=ignore", "trainer.energy=off",
        "trainer.carbon_intensity=20", "allowed_licences=[CC-BY-4.0,Apache-2.0]",
    ):  # fmt: skip
        assert make_plan(more).run_id == plain.run_id


def test_a_record_tells_composition_and_energy(make_plan: MakePlan) -> None:
    plan = make_plan("trainer.watts=100", "trainer.pue=1.25", "trainer.carbon_intensity=500")
    record = execute(plan)
    target = record["composition"]["target"]
    assert sum(target["classes"]["test"].values()) == record["n_test"]
    assert sum(target["train_subset"].values()) == record["n_train"] == 50
    assert record["composition"]["source"] is None
    energy, seconds = record["cost"]["energy"], record["cost"]["fit_seconds"]
    assert energy["kwh"] == pytest.approx(100 * seconds / 3.6e6 * 1.25)
    assert energy["co2e_kg"] == pytest.approx(energy["kwh"] * 0.5)
    assert energy["how"] == "estimated"
    off = execute(make_plan("trainer.energy=off", "seed=1"))
    assert off["cost"]["energy"] is None


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """48 images of two classes with a column ``site``, and a group column."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(48):
        low = 120 * (number % 2)
        pixels = rng.integers(low, low + 100, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append(
            (f"{number}.png", "ab"[number % 2], "NS"[number % 3 % 2], f"p{number % 2}{number // 8}")
        )
    frame = pd.DataFrame(rows, columns=["path", "label", "site", "person"])
    frame.to_csv(tmp_path / "list.csv", index=False)
    return tmp_path / "list.csv"


def line(table: Path, *more: str) -> tuple[str, ...]:
    return ("target=table", f"target.dataset.path={table}", "backbone.image_size=16",
            "target.shots=2", "target.group_by=person", "optimizer.lr=0.01", "budget.steps=12",
            *more)  # fmt: skip


def test_columns_are_carried_into_predictions(make_plan: MakePlan, table: Path) -> None:
    plan = make_plan(*line(table, "target.report_by=[site]"))
    record = execute(plan)
    rows = pd.read_parquet(plan.directory / "predictions.parquet")
    listed = pd.read_csv(table).set_index("path")["site"]
    assert rows["meta.site"].tolist() == listed.loc[rows["item_id"]].tolist()
    assert "meta.person" not in rows
    columns = record["composition"]["target"]["columns"]
    assert sum(columns["site"]["test"].values()) == record["n_test"]
    assert record["composition"]["target"]["groups"]["test"] >= 1


def test_columns_asked_for_later_are_added_without_training(
    make_plan: MakePlan, table: Path
) -> None:
    plain = make_plan(*line(table))
    first = execute(plain)
    weights = next((plain.directory / "checkpoints").glob("*")).read_bytes()
    before = pd.read_parquet(plain.directory / "predictions.parquet")
    asked = make_plan(*line(table, "target.report_by=[site]"))
    assert asked.run_id == plain.run_id
    assert made(asked) is None
    second = execute(asked)
    assert made(asked) is not None
    after = pd.read_parquet(plain.directory / "predictions.parquet")
    assert [*after.columns] == [*before.columns[:-1], "meta.site", "logits"]
    pd.testing.assert_frame_equal(after.drop(columns="meta.site"), before)
    assert next((plain.directory / "checkpoints").glob("*")).read_bytes() == weights
    assert second["cost"] == first["cost"]
    assert second["report_by"] == ["site"]
    card = json.loads((plain.directory / "card.json").read_text())
    assert "site" in card["target"]["composition"]["columns"]


def test_a_column_that_is_not_there_is_refused(make_plan: MakePlan, table: Path) -> None:
    with pytest.raises(UserError, match=r"report_by` names 'sight'.*site"):
        make_plan(*line(table, "target.report_by=[sight]"))
    with pytest.raises(UserError, match=r"report_by` names 'sex'.*brings none"):
        make_plan("target.report_by=[sex]")
