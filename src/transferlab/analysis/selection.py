"""Arms made of other arms' runs: the strategy that validation chooses, replicate by replicate."""

from collections.abc import Sequence
from typing import Any

from transferlab.analysis.arms import Arm, Cell
from transferlab.records import Record
from transferlab.stats.metrics import LOWER_IS_BETTER


def best_of_sources(cell: Cell, metric: str) -> list[Arm]:
    """One arm for each source with several strategies: the best of them in every replicate.

    Whether a *source* does harm is a question about the best that can be made of it. The choice
    is made on validation, never on test: the best of K arms picked on test looks better by chance
    than it is, and hides harm.

    Args:
        cell: whose transfer arms these are.
        metric: the score that validation is compared by.

    Returns:
        The arms, in the order of the cell's. A replicate of which any run is missing is missing.
    """
    by_source: dict[str, list[Arm]] = {}
    for arm in cell.of_role("transfer"):
        by_source.setdefault(str(arm.declared["source"]), []).append(arm)
    return [_best_of(source, arms, metric) for source, arms in by_source.items() if len(arms) > 1]


def _best_of(source: str, arms: Sequence[Arm], metric: str) -> Arm:
    runs: dict[int, Record] = {}
    chosen: dict[str, int] = {arm.id: 0 for arm in arms}
    for seed in sorted(set.intersection(*({*arm.runs} for arm in arms))):
        scored = [(arm, validation_score(arm.runs[seed], metric)) for arm in arms]
        if any(arm.runs[seed]["status"] == "failed" for arm in arms):
            continue  # the one that is missing might have been the best
        known = [(arm, score) for arm, score in scored if score is not None]
        arm = max(known, key=lambda pair: pair[1])[0] if known else arms[0]
        runs[seed] = arm.runs[seed]
        chosen[arm.id] += 1
    declared: dict[str, Any] = {
        "id": f"best strategy from {source}",
        "role": "selected",
        "source": source,
        "strategy": "chosen on validation",
        "tuning": _tuning(arms),
        "chosen": chosen,
        "runs": [{"seed": seed, "run_id": run["run_id"]} for seed, run in runs.items()],
    }
    return Arm(declared, runs)


def _tuning(arms: Sequence[Arm]) -> Record:
    """What the arms' tuning came to together: an edge in any of them may hide a better rate."""
    return {
        "trials": sum(arm.trials for arm in arms),
        "seeds": sorted({seed for arm in arms for seed in arm.tuning.get("seeds", [])}),
        "per": next((arm.tuning["per"] for arm in arms if arm.tuning.get("per")), "study"),
        "rate_at_edge": any(arm.tuning.get("rate_at_edge") for arm in arms),
    }


def validation_score(run: Record, metric: str) -> float | None:
    """A run's validation score, higher is better; None where it has none."""
    score = ((run.get("metrics") or {}).get("validation") or {}).get(metric)
    if score is None:
        return None
    return -float(score) if metric in LOWER_IS_BETTER else float(score)
