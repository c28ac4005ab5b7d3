import json
from pathlib import Path

import pytest

from transferlab.cli.main import main

ROWS = [
    f"{source},{target},{'fine_tune' if source else 'scratch'},{seed},{score + 0.001 * seed**2:.4f}"
    for target in ("digits", "pets")
    for source, score in (("", 0.6), ("glyphs", 0.7))
    for seed in range(5)
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "results.csv"
    rows = [row if "glyphs" not in row else row.replace(",4,0.716", ",4,0.719") for row in ROWS]
    lines = ["source,target,strategy,seed,score,n_items", *(f"{row},9000" for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_table_is_judged_from_the_command_line(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--table", str(table)]) == 0
    shown = capsys.readouterr().out
    folder = table.with_name("results-report")
    assert f"Report: {folder / 'report.html'}" in shown
    assert shown.count("helps") == 2
    assert sorted(path.name for path in folder.iterdir()) == [
        "across_targets.csv", "report.html", "verdicts.csv", "verdicts.json"
    ]  # fmt: skip
    record = json.loads((folder / "verdicts.json").read_text())
    assert record["summary"] == "Of 2 comparisons, transfer helps in 2."
    assert record["margin"] == 0.01


def test_options_reach_the_judgement(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = table.with_name("here")
    line = ["report", f"--table={table}", "--margin=0.2", "--alpha", "0.01", "--out", str(out)]
    assert main([*line, "--metric", "macro_recall"]) == 0
    record = json.loads((out / "verdicts.json").read_text())
    assert [record[key] for key in ("margin", "alpha", "metric")] == [0.2, 0.01, "macro_recall"]
    assert {verdict["verdict"] for verdict in record["verdicts"]} == {"equivalent"}
    assert "no difference that matters" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tabel", "x.csv"], "unknown flag --tabel (nearest: --table"),
        (["--table"], "--table needs a value"),
        (["--table", "--percent"], "--table needs a value"),
        (["--table", "x.csv", "--percent=yes"], "--percent takes no value"),
        (["--table", "x.csv", "--table", "y.csv"], "there twice"),
        (["--table", "x.csv", "outputs/digits"], "one table"),
        (["--table", "x.csv", "--margin", "1%"], "--margin 1% is no number"),
        (["--table", "x.csv"], "x.csv doesn't exist"),
        (["outputs/digits", "--margin", "0.02"], "--margin goes with --table alone"),
        ([], "takes one directory"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    from transferlab.cli.report import SWITCHES, VALUES

    assert main(["report", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(option in text for option in (*VALUES, *SWITCHES))
