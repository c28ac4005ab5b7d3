"""What may be claimed of a run, from the command line on: copies, terms, further test sets."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image


def turned(files: list[Path]) -> None:
    """Turn images by a quarter, so that they are others."""
    for path in files:
        Image.fromarray(np.rot90(np.array(Image.open(path)))).save(path)


LINE = ("target=image_folder", "target.root=A", "target.group_by=none")


@pytest.mark.parametrize("plus", ["", "+"])
def test_another_folder_is_tested_as_well(
    cli, overrides, place: Path, draw_classes, plus: str
) -> None:
    draw_classes(place / "A")
    turned(draw_classes(place / "B"))
    result = cli("run", *overrides(*LINE, f"{plus}target.also_test.B.root=B"))
    assert result.code == 0, result.err
    (folder,) = (place / "outputs/default/runs").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert set(record["metrics"]["also_test"]["B"]) >= {"accuracy", "macro_recall", "log_loss"}
    assert len(pd.read_parquet(folder / "predictions-B.parquet")) == 24
    assert json.loads((folder / "card.json").read_text())["target"]["also_test"].keys() == {"B"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("target.also_test.B.root=A",), "target.also_test.B are also in"),
        (("allowed_licences=[MIT]",), "`target.licence=unknown`"),
        (("target.report_by=[sex]",), "`target.report_by` names 'sex'"),
        (("target.near_duplicates=maybe",), "target.near_duplicates=maybe"),
        (("trainer.energy=guess",), "trainer.energy=guess"),
        (("trainer.pue=0.5",), "trainer.pue=0.5"),
        (("target.also_test.B.rot=A",), "target.also_test.B"),
    ],
)
def test_what_may_not_be_claimed_is_one_line_and_no_run(
    cli, overrides, place: Path, draw_classes, more: tuple[str, ...], said: str
) -> None:
    draw_classes(place / "A")
    result = cli("run", *overrides(*LINE, *more))
    assert result.code == 2
    assert len(result.lines) == 1
    assert said in result.err
    assert not list(place.glob("outputs/default/runs/*/run.json"))
