"""The embedded study as a newcomer runs it: what it finds, and how quick it is to ask again."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1600),
    pytest.mark.xdist_group("demo"),  # one study serves them all
]
PROGRAM = Path(sys.executable).parent / "transferlab"


def demo(folder: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRANSFERLAB_CACHE": str(cache)}
    return subprocess.run(
        [PROGRAM, "run", "experiment=digits"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    """The study, run once from an empty folder with an empty cache."""
    folder, cache = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("demo-cache")
    return folder, cache, demo(folder, cache)


def test_it_ends_well_and_prints_its_table_and_report(made) -> None:
    _, _, result = made
    assert result.returncode == 0, result.stderr
    assert "report.html" in result.stdout
    for word in ("helps", "hurts"):
        assert word in result.stdout
    assert "Traceback" not in result.stderr
    assert "Warning" not in result.stderr


def test_it_finds_a_source_that_helps_and_one_that_hurts(made) -> None:
    text = (made[0] / "outputs/digits/verdicts.json").read_text()
    verdicts: list[dict[str, Any]] = json.loads(text)["verdicts"]
    helps = [v for v in verdicts if v["verdict"] == "positive"]
    hurts = [v for v in verdicts if v["verdict"] == "negative"]
    assert ("glyphs", "fine_tune") in {(v["source"], v["strategy"]) for v in helps}
    assert "noise" in {v["source"] for v in hurts}
    for verdict in helps + hurts:
        low, high = verdict["ci95"]
        assert low <= verdict["delta"] <= high
        assert low > 0 or high < 0
        assert verdict["n_pairs"] == 8
        assert 0 <= verdict["p_sign"] <= verdict["p_sign_holm"] <= 0.05
        assert 0 <= verdict["p_equiv"] <= 1
        assert verdict["source"] in verdict["sentence"]
        assert "equal steps" in verdict["sentence"]


def test_asked_again_it_skips_everything_and_is_quick(made) -> None:
    folder, cache, _ = made
    output = folder / "outputs/digits"
    before = {path: path.stat().st_mtime_ns for path in output.glob("runs/*/*")}
    verdicts = (output / "verdicts.json").read_bytes()
    started = time.monotonic()
    result = demo(folder, cache)
    assert result.returncode == 0
    assert time.monotonic() - started < 60  # generous: 20 s on an idle machine
    assert {path: path.stat().st_mtime_ns for path in output.glob("runs/*/*")} == before
    assert (output / "verdicts.json").read_bytes() == verdicts


def test_the_report_is_one_file_with_everything_in_it(made) -> None:
    page = (made[0] / "outputs/digits/report.html").read_text()
    loaded = re.findall(r"""(?:src|href|data)\s*=\s*["']?([^"'\s>]+)""", page)
    loaded += re.findall(r"url\(\s*[\"']?([^\"')]+)", page) + re.findall(r"@import\s+(\S+)", page)
    outside = [link for link in loaded if not link.startswith(("#", "data:"))]
    assert not outside
    headings = " ".join(re.findall(r"<h[1-4][^>]*>(.*?)</h[1-4]>", page, re.DOTALL)).lower()
    for section in (
        "verdicts", "every replicate", "learning curves", "baselines", "cost", "overfitting",
        "compared with what",
    ):  # fmt: skip
        assert section in headings
