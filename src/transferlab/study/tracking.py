"""What a study came to, for its trackers: tables and report as a run of the study's own."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from transferlab.analysis.judge import Judgement
from transferlab.building import build
from transferlab.records import Record, read_json, sha256_record, write_json
from transferlab.trackers.base import TrackedStudy, Tracker
from transferlab.trackers.sending import attempt

SENT = "tracked.json"
"""What each tracker was last sent, as a hash: the same is not sent again."""
GAIN_COLUMNS = (
    "run_id", "gain", "cell", "arm", "source", "target", "shots", "backbone", "strategy", "seed",
)  # fmt: skip


def track(cfg: DictConfig, folder: Path, judgement: Judgement) -> None:
    """Send a judged study to its trackers; one that fails costs a line on stderr.

    Args:
        cfg: the master configuration, with ``tracker``.
        folder: of the study.
        judgement: what was just written there.
    """
    nodes = cfg.tracker or {}
    if not nodes:
        return
    study = tracked_study(folder, judgement)
    path = folder / SENT
    sent: Record = read_json(path) if path.is_file() else {}
    for name, node in ((str(name), node) for name, node in nodes.items()):
        content = [OmegaConf.to_container(node, resolve=True), study.verdicts.to_csv()]
        content += [study.gains.to_csv(), study.page.read_text() if study.page else None]
        wanted = sha256_record(content)
        if sent.get(name) == wanted:
            continue
        tracker: Tracker = build(node)
        when, rest = "at the study's verdicts", f"they lie in {folder}"
        if attempt(name, when, lambda t=tracker: t.publish(study), rest):  # type: ignore[misc]
            sent[name] = wanted
            write_json(path, sent)


def tracked_study(folder: Path, judgement: Judgement) -> TrackedStudy:
    """Return what trackers may have of a judged study: nothing in it names an image.

    The page tells why runs failed, in words that may hold the name of a file: where a run failed
    it is left out.
    """
    header = read_json(folder / "study.json")
    cells = [[cell["id"], [arm["id"] for arm in cell["arms"]]] for cell in header["cells"]]
    failed = any(run["status"] == "failed" for run in judgement.runs)
    return TrackedStudy(
        run_id=f"study-{sha256_record([header['name'], cells])[:16]}",
        name=str(header["name"]),
        directory=folder,
        summary=str(read_json(folder / "verdicts.json")["summary"]),
        verdicts=pd.read_csv(io.StringIO((folder / "verdicts.csv").read_text())),
        gains=pd.DataFrame(_gains(header, judgement.verdicts), columns=list(GAIN_COLUMNS)),
        page=None if failed else judgement.report,
    )


def _gains(header: Record, verdicts: tuple[Record, ...]) -> Iterator[dict[str, Any]]:
    """Yield each replicate's gain over scratch with the run that it is of, cell by cell."""
    runs = {
        (cell["id"], arm["id"], run["seed"]): run["run_id"]
        for cell in header["cells"]
        for arm in cell["arms"]
        for run in arm["runs"]
    }
    for verdict in verdicts:
        seeds = [key["seed"] for key in verdict["replicate_keys"]]
        for seed, gain in zip(seeds, verdict["per_replicate_delta"], strict=False):
            run_id = runs[verdict["cell"], verdict["arm"], seed]
            yield {**verdict, "run_id": run_id, "seed": seed, "gain": gain}
