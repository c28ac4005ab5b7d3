from pathlib import Path

import pytest

from transferlab.analysis.foreign.items import ItemFiles, read_items
from transferlab.analysis.foreign.options import Options
from transferlab.analysis.foreign.rows import Row
from transferlab.errors import UserError

GOOD = "item_id,correct\nb,1\na,0\nc,1\n"


def row(tmp_path: Path, text: str | None, score: float = 2 / 3, n_items: int | None = None) -> Row:
    path = tmp_path / "items.csv"
    if text is not None:
        path.write_text(text)
    return Row(7, "glyphs", "digits", "fine_tune", "0", score, n_items, path)


def test_items_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    items = read_items(row(tmp_path, GOOD), Options())
    assert items.ids.tolist() == ["a", "b", "c"]
    assert items.scores.tolist() == [0.0, 1.0, 1.0]
    assert items.groups is None


def test_ways_to_write_right_and_wrong(tmp_path: Path) -> None:
    for yes, no in (("true", "false"), ("True", "False"), ("1.0", "0.0")):
        text = GOOD.replace(",1", f",{yes}").replace(",0", f",{no}")
        assert read_items(row(tmp_path, text), Options()).scores.tolist() == [0.0, 1.0, 1.0]


def test_an_error_is_what_is_not_correct(tmp_path: Path) -> None:
    options = Options("error", lower_is_better=True)
    assert read_items(row(tmp_path, GOOD, 1 / 3), options).scores.tolist() == [1.0, 0.0, 0.0]


def test_scores_are_in_the_unit_of_the_table(tmp_path: Path) -> None:
    text = "item_id;score\na;40\nb;60\n"
    items = read_items(row(tmp_path, text, 0.5), Options("dice", percent=True))
    assert items.scores.tolist() == [0.4, 0.6]


def test_groups_and_labels_go_with_their_items(tmp_path: Path) -> None:
    text = "item_id,correct,group,label,lr\nb,1,p1,x,0\na,0,p2,y,0\nc,1,,x,0\n"
    files = ItemFiles(Options("macro_recall"))
    items = files.of(row(tmp_path, text, 0.5))
    assert items.groups is not None
    assert items.groups.tolist() == ["group p2", "group p1", "item c"]
    assert items.mean(by_class=True) == 0.5
    assert files.unread == {"lr"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "doesn't exist"),
        ("item_id,correct\n", "no items"),
        ("item,correct\na,1\n", "no column item_id (nearest: item)"),
        ("item_id,right\na,1\n", "no column correct or score"),
        ("item_id,correct,score\na,1,1\n", "both correct and score"),
        (GOOD.replace("c,1", "a,1"), "an item more than once"),
        (GOOD.replace("c,1", "c,2"), "correct holds 2, not 0 or 1"),
        (GOOD.replace("c,1", "c,maybe"), "no number"),
        (GOOD.replace("c,1", "c,"), "without a finite value"),
        (GOOD.replace("a,0", "a,1"), "a mean of 1, and the table says the score is 0.6667"),
    ],
)
def test_a_file_that_is_wrong_names_the_row(text: str | None, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_items(row(tmp_path, text), Options())
    assert said in str(caught.value)
    assert "items.csv (line 7)" in str(caught.value)


def test_a_count_that_differs_and_a_missing_label_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds 3 items, and the table says n_items=5"):
        read_items(row(tmp_path, GOOD, n_items=5), Options())
    with pytest.raises(UserError, match="no column label"):
        read_items(row(tmp_path, GOOD), Options("macro_recall"))


def test_rounded_scores_agree_with_their_items(tmp_path: Path) -> None:
    read_items(row(tmp_path, GOOD, 0.67), Options())
    with pytest.raises(UserError, match="mean"):
        read_items(row(tmp_path, GOOD, 0.68), Options())
