"""What is edited, ended or submitted again while jobs wait changes nothing of them."""

import signal
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), pytest.mark.xdist_group("slurm")]

SAYS = """
from pathlib import Path
from transferlab.callbacks.base import StrategyCallback

class Says(StrategyCallback):
    def __init__(self, word): self.word = word
    def on_fit_end(self, trainer, pl_module):
        Path("said").open("a").write(f"{self.word} {WORD}\\n")

WORD = "python-1"
"""
CHOICE = """
defaults: [fine_tune]
callbacks: {says: {_target_: says.Says, word: yaml-1}}
"""


def test_pending_jobs_keep_their_code_and_configuration_and_outlive_their_driver(
    slurm: Any,
) -> None:
    module, choice = Path("says.py"), Path("conf/strategy/said.yaml")
    choice.parent.mkdir(parents=True)
    module.write_text(SAYS)
    choice.write_text(CHOICE)
    line = [part for part in slurm.line if not part.startswith(("strategy=", "+strategy"))]
    asked = ["run", "-m", "strategy=said", "seed=0,1", *line, "name=edited", *slurm.launcher,
             "hydra.launcher.runs_per_job=2"]  # fmt: skip
    first = slurm.start(*asked, "+hydra.launcher.additional_parameters.hold=true")
    slurm.until(lambda: slurm.notes("edited"))
    (note,) = slurm.notes("edited")
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert slurm.states(note["job"]) == ["PENDING"]
    second = slurm.start(*asked)
    requests = Path("outputs/edited/study.json")
    before = requests.stat().st_mtime_ns
    slurm.until(lambda: requests.stat().st_mtime_ns > before)
    module.write_text(SAYS.replace("python-1", "python-2"))
    choice.write_text(CHOICE.replace("yaml-1", "yaml-2"))
    slurm.ask("scontrol", "release", note["job"])
    slurm.end(second)
    assert Path("said").read_text() == "yaml-1 python-1\n" * 2
    assert len(slurm.notes("edited")) == 1, "what waits is not submitted again"
    assert {r["status"] for r in slurm.records("edited").values()} == {"done"}
    told = slurm.end(slurm.start("status", "outputs/edited"))[0]
    assert "2 done" in told
    assert slurm.ended(note["job"]) == ["COMPLETED"]


SHOP = """
import shutil
from pathlib import Path
from transferlab.datasets.image_folder import ImageFolder

class Shop(ImageFolder):
    def __init__(self, root):  # delivered on the first request, and kept
        if not (Path(root) / "ant").is_dir():
            shutil.copytree("server", root, dirs_exist_ok=True)
        super().__init__(root)
"""


def test_what_was_fetched_serves_a_study_that_nobody_waits_for(
    slurm: Any, draw_classes: Any
) -> None:
    draw_classes(Path("server"), each=30)
    Path("shelf").mkdir()
    Path("shop.py").write_text(SHOP)
    shop = ("target=image_folder", "target.root=shelf", "target.dataset._target_=shop.Shop")
    asked = ("-m", "seed=0,1", *slurm.line, *shop, "name=alone")
    told = slurm.end(slurm.start("fetch", *asked))[0]
    assert "target shelf: 60 images at 16 pixels" in told
    Path("server").rename("gone")
    told = slurm.end(slurm.start("run", *asked, *slurm.launcher, "hydra.launcher.wait=false"))[0]
    assert told.startswith("submitted: job ")
    driver = told.split()[2]
    slurm.until(lambda: slurm.states(driver) == ["COMPLETED"])
    assert {r["status"] for r in slurm.records("alone").values()} == {"done"}
    assert Path("outputs/alone/report.html").is_file()
    (note,) = slurm.notes("alone")
    assert slurm.ended(note["job"]) == ["COMPLETED"] * len(note["tasks"])


def test_a_real_time_limit_is_heeded_without_a_driver(slurm: Any) -> None:
    begun = slurm.order(0, "wait")
    limit = ("hydra.launcher.time=2", "hydra.launcher.signal_seconds=60")
    asked = ("run", *slurm.line, "name=limit", *slurm.launcher)
    told = slurm.end(slurm.start(*asked, *limit, "hydra.launcher.wait=false"))[0]
    assert told.startswith("submitted: run ")
    slurm.until(lambda: (slurm.release(), slurm.records("limit"))[1])
    assert begun.exists()
    record = slurm.records("limit")[0]
    assert record["status"] == "done"
    assert record["resumed_at_steps"][-1] == slurm.step + 1  # an earlier notice may have come first
