"""Another hospital: tested once, by the target's classes, beside the target's own test split."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from transferlab.errors import UserError
from transferlab.planning import Plan
from transferlab.run import execute
from transferlab.stats.metrics import accuracy

MakePlan = Callable[..., Plan]


def folder(root: Path, classes: Sequence[str] = ("ant", "bee", "cow"), seed: int = 0) -> Path:
    """A class is told by its brightness; no two images are alike."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True)
        low = 60 * ("ant", "bee", "cow", "dog").index(name)
        for number in range(12):
            pixels = rng.integers(low, low + 60, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def line(tmp_path: Path) -> tuple[str, ...]:
    root = folder(tmp_path / "A")
    return ("target=image_folder", f"target.root={root}", "backbone.image_size=16",
            "target.shots=3", "target.group_by=none", "strategy=scratch")  # fmt: skip


def test_each_set_is_predicted_noted_and_scored(
    make_plan: MakePlan, line: tuple[str, ...], tmp_path: Path
) -> None:
    other = folder(tmp_path / "B", ("cow", "bee", "ant"), seed=1)
    plan = make_plan(*line, f"target.also_test.B.root={other}", "budget.steps=30",
                     "optimizer.lr=0.01")  # fmt: skip
    record = execute(plan)
    own = pd.read_parquet(plan.directory / "predictions.parquet")
    found = pd.read_parquet(plan.directory / "predictions-B.parquet")
    assert found.columns.tolist() == own.columns.tolist()
    assert len(found) == 36
    assert set(found["split"]) == {"test"}
    names = [record["classes"][label] for label in found["label"]]
    assert names == [item.partition("/")[0] for item in found["item_id"]]
    score = record["metrics"]["also_test"]["B"]
    assert score["accuracy"] == accuracy(found["prediction"].to_numpy(), found["label"].to_numpy())
    notes = [json.loads(x) for x in (plan.directory / "ledger.jsonl").read_text().splitlines()]
    assert [note["event"] for note in notes] == ["test split opened", "further test set B opened"]
    assert record["licences"]["also_test"] == {"B": "unknown"}
    assert record["near_duplicates"]["also_test"]["B"]["train"]["of"] == 36
    again = execute(plan)
    assert again == json.loads((plan.directory / "run.json").read_text())


def test_a_set_answers_as_if_it_were_the_target(
    make_plan: MakePlan, line: tuple[str, ...], tmp_path: Path
) -> None:
    """The target's own folder as a further set gives the target's own test logits."""
    root = line[1].partition("=")[2]
    plan = make_plan(*line, f"target.also_test.same.root={root}", "target.near_duplicates=warn")
    execute(plan)
    own = pd.read_parquet(plan.directory / "predictions.parquet").set_index("item_id")
    same = pd.read_parquet(plan.directory / "predictions-same.parquet").set_index("item_id")
    test = own[own["split"] == "test"]
    np.testing.assert_allclose(
        np.stack(test["logits"].to_list()), np.stack(same.loc[test.index, "logits"].to_list()),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_a_run_that_lacks_a_set_is_another_run(
    make_plan: MakePlan, line: tuple[str, ...], tmp_path: Path
) -> None:
    folder(tmp_path / "B", seed=1)
    plain = make_plan(*line)
    also = make_plan(*line, f"target.also_test.B.root={tmp_path / 'B'}")
    renamed = make_plan(*line, f"target.also_test.C.root={tmp_path / 'B'}")
    assert len({plain.run_id, also.run_id, renamed.run_id}) == 3
    assert "also_test" not in plain.identity
    tuning = []
    for more in ((), (f"target.also_test.B.root={tmp_path / 'B'}",)):
        tuning.append(make_plan(*line, "purpose=tune", *more).run_id)
    assert tuning[0] == tuning[1], "tuning opens no test"


def test_an_official_test_split_is_what_is_tested(
    make_plan: MakePlan, line: tuple[str, ...], tmp_path: Path
) -> None:
    for seed, split in enumerate(("train", "test")):
        folder(tmp_path / "B" / split, seed=seed + 5)
    plan = make_plan(*line, f"target.also_test.B.root={tmp_path / 'B'}")
    test = plan.further["B"]
    assert {test.store.ids[p].partition("/")[0] for p in test.positions} == {"test"}
    assert len(test.positions) == 36


def test_copies_of_training_images_in_a_further_set_are_refused(
    make_plan: MakePlan, line: tuple[str, ...]
) -> None:
    root = line[1].partition("=")[2]
    with pytest.raises(UserError, match=r"target\.also_test\.B are also in .* exact"):
        make_plan(*line, f"target.also_test.B.root={root}")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("target.also_test.B.root={tmp}/fewer",), "lacks the class 'cow'"),
        (("target.also_test.B.root={tmp}/other",), "has the class 'dog'"),
        (("target.also_test.B.root={tmp}/nowhere",), "target.also_test.B"),
        (("target.also_test.B.rot={tmp}/A",), "names no images"),
        (("target.also_test.B.root={tmp}/A", "target.also_test.B.shots=3"),
         r"unknown key target\.also_test\.B\.shots"),
        (("target.also_test.B.root={tmp}/A", "target.also_test.B.report_by=[sex]"),
         r"`target\.also_test\.B\.report_by` names 'sex'"),
        (("target.also_test=3",), "expected sets by name"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_training(
    make_plan: MakePlan, line: tuple[str, ...], tmp_path: Path, more: tuple[str, ...], said: str
) -> None:
    folder(tmp_path / "fewer", ("ant", "bee"), seed=3)
    folder(tmp_path / "other", ("ant", "bee", "dog"), seed=4)
    with pytest.raises(UserError, match=said) as caught:
        make_plan(*line, *(text.format(tmp=tmp_path) for text in more))
    assert "\n" not in str(caught.value)


def test_a_set_of_another_kind_brings_its_dataset(
    make_plan: MakePlan, line: tuple[str, ...], tmp_path: Path
) -> None:
    root = folder(tmp_path / "B", seed=1)
    rows = "\n".join(f"{p.relative_to(root)},{p.parent.name}" for p in sorted(root.rglob("*.png")))
    (root / "list.csv").write_text(f"path,label\n{rows}\n")
    plan = make_plan(
        *line, "target.also_test.B.dataset._target_=transferlab.datasets.table.Table",
        f"target.also_test.B.dataset.path={root / 'list.csv'}",
    )  # fmt: skip
    assert len(plan.further["B"].positions) == 36


def test_generated_data_have_no_root_to_change(make_plan: MakePlan, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Digits reads no folder"):
        make_plan(f"target.also_test.B.root={tmp_path}")
