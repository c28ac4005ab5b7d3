"""Candidates scored, ranked and advised on, before anything is adapted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transferlab.checks import check_output
from transferlab.planning import plan_run
from transferlab.recommending.candidates import Candidate
from transferlab.records import FORMAT, Record, write_json
from transferlab.scouting.arms import Predictor
from transferlab.scouting.sources import Announce
from transferlab.transferability.advice import (
    NO_VERDICT,
    RANKED_BY,
    Evidence,
    advise,
    command,
    rank_key,
)

DEFAULTS = {"target": "digits", "backbone": "test_resnet"}
"""What a run takes where the command line does not say; an experiment of its own may differ."""
LEFT_OUT = ("source", "name", "output_dir", "seed", "strategy")
"""What a study sets by itself, or what belongs to the source."""


def recommend(
    shared: Sequence[str], candidates: Sequence[Candidate], announce: Announce
) -> tuple[Record, Path]:
    """Score candidates on the target's training images and say what to try first.

    Args:
        shared: overrides that all candidates share, for the command that is printed.
        candidates: at least one.
        announce: told in a line what takes time, before it does.

    Returns:
        the record, and the file that it was written to.

    Raises:
        UserError: data, weights or folders that the user can mend.
    """
    folder = Path(candidates[0].cfg.output_dir).absolute()
    check_output(folder)
    plans = [plan_run(candidate.cfg) for candidate in candidates]  # all errors before any training
    predictor = Predictor(announce)
    scored: list[tuple[Record, Candidate]] = []
    for number, (candidate, plan) in enumerate(zip(candidates, plans, strict=True), start=1):
        announce(f"{number}/{len(candidates)} {candidate.name}: features of the training images")
        name = candidate.name if candidate.source else plan.cfg.source.name
        scored.append(({"name": name} | predictor.predict(plan), candidate))
    scored.sort(key=lambda pair: _rank(pair[0]), reverse=True)
    ranked = [{"rank": rank} | found for rank, (found, _) in enumerate(scored, start=1)]
    advice = advise(_evidence(ranked[0]))
    record: Record = {
        "format": FORMAT,
        "target": ranked[0]["target"],
        "ranked_by": RANKED_BY,
        "candidates": ranked,
        "advice": vars(advice) | {"about": ranked[0]["name"]},
        "no_verdict": NO_VERDICT,
        "command": study_command(shared, scored[0][1], advice.strategies),
    }
    path = folder / "recommend.json"
    write_json(path, record)
    return record, path


def study_command(shared: Sequence[str], best: Candidate, strategies: Sequence[str]) -> str:
    """Write the command of the study that judges the best candidate, or the user's own study."""
    plain = [text.lstrip("+") for text in shared]
    if any(text.startswith("experiment=") for text in plain):
        return " ".join(["transferlab run", *plain])
    of_source = [t for t in plain if t.partition("=")[0].split(".")[0] == "source"]
    kept = [t for t in plain if t.partition("=")[0].split(".")[0] not in LEFT_OUT]
    kept += best.backbone
    missing = [f"{group}={value}" for group, value in DEFAULTS.items() if not _names(kept, group)]
    source = [*(best.source or ()), *of_source]
    return command([*missing, *kept], source, strategies)


def _names(overrides: Sequence[str], group: str) -> bool:
    return any(text.startswith(f"{group}=") for text in overrides)


def _rank(record: Record) -> tuple[float, float]:
    known = record["scores"]["knn_1"]["value"] is not None
    return rank_key(
        record["neighbours"]["source"] if known else None, record["scores"]["logme"]["value"]
    )


def _evidence(record: Record) -> Evidence:
    w1: Any = record["alarms"]["w1"]
    return Evidence(
        per_class=record["smallest_train_class"],
        margin=w1["value"],
        margin_se=w1["se"],
        proxy_a=record["gap"]["proxy_a"] if record["gap"] else None,
        w2=record["alarms"]["w2"]["fires"],
    )
