"""The report in a browser, on a desk and on a telephone."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("page")]  # one study serves them all
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FRAME = """<!doctype html><body style="margin:0"><iframe id="page" src="page.html"
  style="border:0;width:{width}px;height:2000px"></iframe><script>
document.getElementById("page").addEventListener("load", (event) => {{
  const root = event.target.contentDocument.documentElement;
  document.body.setAttribute("data-measured",
    `${{root.scrollWidth}} ${{root.clientWidth}} ${{root.scrollHeight}}`);
}});</script></body>"""


@pytest.fixture(scope="module")
def browser() -> str:
    """Path of a Chromium; where the tests run on their own it must be there."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and os.environ.get("TRANSFERLAB_CI"):
        pytest.fail(f"no browser: install one of {', '.join(NAMES)}")
    if found is None:
        pytest.skip(f"needs one of {', '.join(NAMES)}")
    return found


@pytest.fixture
def page(cli, overrides, place: Path) -> Path:
    """The report of a small grid, with long names in it."""
    line = ("run", "-m", "strategy=scratch,feature_extraction,fine_tune", "source=glyphs")
    more = overrides("target.shots=5", "name=a-name-that-is-rather-long-for-a-folder", glyphs=True)
    assert cli(*line, "seed=0,1,2", *more).code == 0
    return next((place / "outputs").iterdir()) / "report.html"


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_its_window(width: int, page: Path, browser: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_bytes(page.read_bytes())
    (tmp_path / "frame.html").write_text(FRAME.format(width=width))
    made = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu",
            "--allow-file-access-from-files", "--window-size=1400,2000",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=5000", "--dump-dom", (tmp_path / "frame.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    measured = re.search(r'data-measured="(\d+) (\d+) (\d+)"', made.stdout)
    assert measured is not None, made.stderr
    needed, shown, height = map(int, measured.groups())
    assert shown == pytest.approx(width, abs=20)  # a scroll bar may take some
    assert needed <= shown  # nothing to scroll sideways
    assert height > 600  # there is a page
