"""``transferlab cache``: what is there is counted, what is named goes, the rest stays."""

from pathlib import Path

import pytest

from transferlab.cache import PARTS, clear, holdings
from transferlab.cli.main import main


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRANSFERLAB_CACHE", str(tmp_path / "cache"))
    for number, part in enumerate(PARTS, 1):
        path = tmp_path / "cache" / part / "below" / "file"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 1000 * number)
    return tmp_path / "cache"


def left(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if any(path.rglob("file"))}


def test_parts_are_counted(cache: Path) -> None:
    assert {h.part: h.bytes for h in holdings(cache)} == {
        part: 1000 * number for number, part in enumerate(PARTS, 1)
    }
    assert sum(h.files for h in holdings(cache / "nowhere")) == 0


def test_it_shows_every_part(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{cache}:"
    assert [line.split()[0] for line in lines] == list(PARTS)
    assert lines[1].split()[1:5] == ["2", "kB", "1", "file"]


@pytest.mark.parametrize(
    ("named", "gone"),
    [
        (["features"], {"features"}), (["decoded", "runs"], {"decoded", "runs"}),
        ([], PARTS.keys() - {"runs"}),
    ],
)  # fmt: skip
def test_what_is_named_goes(
    named: list[str], gone: set[str], cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", "clear", *named]) == 0
    assert left(cache) == PARTS.keys() - gone
    assert capsys.readouterr().out.startswith("removed ")


def test_what_is_freed_is_counted(cache: Path) -> None:
    assert clear(cache, ["features", "splits"]) == 5000
    assert clear(cache, ["features", "splits"]) == 0


def test_strange_words_remove_nothing(cache: Path) -> None:
    for line in (["clean"], ["clear", "feature"], ["clear", "../x"]):
        assert main(["cache", *line]) == 2
    assert left(cache) == set(PARTS)
