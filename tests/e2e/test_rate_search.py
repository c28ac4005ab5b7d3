"""``transferlab run --find-lr``: a rate and its curve, and no run."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_a_search_prints_a_rate_and_makes_no_run(cli, overrides, place: Path) -> None:
    line = ("run", *overrides(), "name=one", "strategy=scratch", "target.shots=20")
    found = cli(*line, "--find-lr")
    assert found.code == 0, found.err
    (path,) = (place / "outputs" / "one" / "rates").glob("*.jsonl")
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    (suggested,) = [line["lr"] for line in lines if line["suggested"]]
    assert f"optimizer.lr={suggested:.1e}" in found.out
    assert str(path) in found.out
    assert str(path.with_suffix(".png")) in found.out
    assert path.with_suffix(".png").is_file()
    assert not (place / "outputs" / "one" / "runs").exists()
    assert cli(*line).code == 0
    (made,) = (place / "outputs" / "one" / "runs").iterdir()
    assert made.name == path.stem
    assert "find_lr: false" in (made / "config.yaml").read_text()


@pytest.mark.parametrize(
    "extra",
    [("-m", "seed=0,1"), ("experiment=digits",), ("--dry-run",), ("head=knn",)],
    ids=lambda extra: extra[0],
)
def test_what_has_no_single_rate_is_refused_in_one_line(cli, overrides, place, extra) -> None:
    result = cli("run", *overrides(), *extra, "strategy=feature_extraction", "--find-lr")
    assert result.code == 2
    assert len(result.lines) == 1
    assert "--find-lr" in result.lines[0]
    assert not list(place.glob("outputs/*/runs"))
