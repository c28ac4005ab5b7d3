from pathlib import Path

import pytest

from transferlab.analysis.foreign.options import Options
from transferlab.analysis.foreign.table import ForeignTable, read_table
from transferlab.errors import UserError

HEAD = "source,target,strategy,seed,score"
GOOD = f"{HEAD}\n,digits,scratch,0,0.8\nglyphs,digits,fine_tune,0,0.9\n"


def read(tmp_path: Path, text: str, options: Options | None = None) -> ForeignTable:
    path = tmp_path / "results.csv"
    path.write_bytes(text.encode())
    return read_table(path, options or Options())


def refusal(tmp_path: Path, text: str, options: Options | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text, options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_table_as_it_should_be(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD)
    assert table.targets() == ["digits"]
    assert table.arms("digits") == [("glyphs", "fine_tune")]
    assert table.scratch("digits")["0"].score == 0.8
    assert table.notices == ()


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace(",", ";"),
        GOOD.replace(",", "\t"),
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace(HEAD, "Source, Target ,STRATEGY,Seed,Score"),
        GOOD.replace(",0,", ",0.0,") + "\n\n",
        GOOD.replace("\n,digits", "\nnone,digits"),
    ],
)
def test_what_spreadsheets_do_to_a_table_changes_nothing(text: str, tmp_path: Path) -> None:
    table, plain = read(tmp_path, text), read(tmp_path, GOOD)
    assert [(r.arm, r.target, r.seed, r.score) for r in table.rows] == [
        (r.arm, r.target, r.seed, r.score) for r in plain.rows
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("score", "scores", 1), ("no column 'score'", "nearest: scores")),
        (GOOD.replace("glyphs", ""), ("line 3", "source is empty", "write none")),
        (GOOD.replace("digits,fine", ",fine"), ("line 3", "target is empty")),
        (GOOD.replace("fine_tune,0", "fine_tune,"), ("seed is empty", "Write 0")),
        (GOOD.replace("0.9", "good"), ("'good' is no number",)),
        (GOOD.replace("0.9", '"0,9"'), ("'0,9' is no number", "decimal point")),
        (GOOD.replace("0.9", "90.0"), ("line 3", "90 is a percent", "--percent")),
        (GOOD.replace("0.9", "1.2"), ("1.2 is above its maximum of 1",)),
        (GOOD.replace("0.9", "-0.1"), ("-0.1 is below 0", "--metric")),
        (GOOD.replace("0.9", "0.9,1"), ("line 3: 6 cells under 5 columns",)),
        (GOOD.replace("scratch", "scrach"), ("'scrach' (nearest: scratch)",)),
        (GOOD.replace(",digits,scratch", "none,digits,scrach"), ("no row", "nearest: scrach")),
        (GOOD.replace("fine_tune", "scratch"), ("both scratch",)),
        (HEAD + "\n", ("no rows",)),
        (HEAD + "\n,digits,scratch,0,0.8\n", ("all rows are 'scratch'",)),
        (GOOD.replace("score", "score,score", 1), ("'score' more than once",)),
        (GOOD + "glyphs,digits,fine-tune,1,0.9\n", ("line 4", "unlike 'fine_tune'", "nearest")),
        (GOOD + "none,digits,Scratch,1,0.9\n", ("line 4", "'Scratch'", "nearest: scratch")),
        (GOOD + "glyphs,digits,fine_tune,0,0.7\n", ("lines 3 and 4", "a seed of its own")),
    ],
)
def test_what_can_not_be_read_is_one_line(text: str, said: tuple[str, ...], tmp_path: Path) -> None:
    message = refusal(tmp_path, text)
    assert "results.csv" in message
    for part in said:
        assert part in message


def test_repeated_runs_name_the_column_that_tells_them_apart(tmp_path: Path) -> None:
    text = (
        GOOD.replace("score", "score,shots", 1)
        .replace("0.8\n", "0.8,5\n")
        .replace("0.9\n", "0.9,5\nglyphs,digits,fine_tune,0,0.95,20\n")
    )
    assert "They differ in shots" in refusal(tmp_path, text)


def test_percents_need_the_switch_and_shares_must_not_have_it(tmp_path: Path) -> None:
    percents = GOOD.replace("0.9", "90").replace("0.8", "80.5")
    rows = read(tmp_path, percents, Options(percent=True)).rows
    assert [row.score for row in rows] == pytest.approx([0.805, 0.9])
    assert "Drop --percent" in refusal(tmp_path, GOOD, Options(percent=True))
    assert "above its maximum of 100" in refusal(
        tmp_path, percents.replace("90", "900"), Options(percent=True)
    )
    perplexity = Options(metric="perplexity", margin=1, lower_is_better=True)
    assert read(tmp_path, percents, perplexity).rows[1].score == 90


@pytest.mark.parametrize("text", ["", "nan", "NaN", "inf", "-inf", "n/a"])
def test_failed_runs_are_counted(text: str, tmp_path: Path) -> None:
    table = read(tmp_path, GOOD + f"glyphs,digits,fine_tune,1,{text}\n")
    assert [row.failed for row in table.rows] == [False, False, True]
    assert "1 run without a finite score" in table.notices[0]
    assert "line 4" in table.notices[0]


def test_scratch_repeated_for_every_source_counts_once(tmp_path: Path) -> None:
    text = GOOD.replace("\n,digits", "\nglyphs,digits") + "noise,digits,scratch,0,0.8\n"
    table = read(tmp_path, text)
    assert len(table.rows) == 2
    assert any("2 rows of scratch name a source" in note for note in table.notices)
    assert any("1 row of scratch repeat" in note for note in table.notices)
    assert "They differ in source" in refusal(
        tmp_path, text.replace("0,0.8\nglyphs", "0,0.7\nglyphs")
    )


def test_unread_columns_and_gaps_are_said(tmp_path: Path) -> None:
    text = GOOD.replace("score", "score,n_item,notes", 1).replace("0.8\n", "0.8,1,a\n")
    text = text.replace("0.9\n", "0.9,1,b\n,pets,scratch,0,0.5,1,\nnoise,pets,fine_tune,0,0.4,1,\n")
    notices = read(tmp_path, text + ",faces,scratch,0,0.2,1,\n").notices
    assert "2 columns not read: n_item (nearest: n_items), notes." in notices
    assert "faces has only rows of scratch, so nothing to judge." in notices
    assert any(
        "No row for fine_tune from noise on digits, fine_tune from glyphs" in n for n in notices
    )


def test_n_items_is_a_count(tmp_path: Path) -> None:
    text = f"{HEAD},n_items\n,digits,scratch,0,0.8,\nglyphs,digits,fine_tune,0,0.9,{{}}\n"
    assert read(tmp_path, text.format("500.0")).rows[1].n_items == 500
    for wrong in ("many", "0", "2.5", "-3"):
        assert f"n_items is '{wrong}'" in refusal(tmp_path, text.format(wrong))


def test_a_file_that_is_none_says_so(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "no.csv", "doesn't exist"), (tmp_path, "is a folder")):
        with pytest.raises(UserError, match=said):
            read_table(path, Options())
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1")
    with pytest.raises(UserError, match="can't be read"):
        read_table(broken, Options())
    latin = tmp_path / "latin.csv"
    latin.write_bytes(GOOD.replace("glyphs", "grün").encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        read_table(latin, Options())
