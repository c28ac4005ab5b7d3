"""How soon arms are as good as scratch nearly ends, and when a pretraining has paid for itself."""

from transferlab.analysis.arms import Arm, Cell
from transferlab.analysis.facts import Table, mean_of
from transferlab.analysis.formats import NOTHING, duration, percent, ratio
from transferlab.analysis.gains import arm_name
from transferlab.records import Record
from transferlab.stats.speed import TAU, Time, break_even_targets, median_time, time_to_accuracy


def speed_table(cell: Cell) -> Table | None:
    """Median steps and seconds to the target score, and the targets that pay for the source."""
    scratch, metric = cell.scratch(), str(cell.first("metric") or "accuracy")
    goal = None if scratch is None else _final(scratch, metric)
    if scratch is None or goal is None:
        return None
    target = TAU * goal
    base, rows = _seconds(scratch, metric, target), []
    for arm in cell.arms:
        steps = _median(arm, metric, target)
        if steps is None:
            continue
        seconds = _seconds(arm, metric, target)
        faster = steps.reached and base and seconds
        rows.append(
            [
                arm_name(arm),
                str(steps),
                duration(seconds) if seconds is not None and steps.reached else NOTHING,
                ratio(base / seconds) if faster and base and seconds else NOTHING,
                _pays(arm, base, seconds if steps.reached else None),
            ]
        )
    if not rows:
        return None
    head = ["arm", "steps", "seconds", "speed-up over scratch", "source paid after"]
    note = (
        f"Until validation reaches {percent(target)} %, {TAU:.0%} of scratch's final score; the "
        "median over replicates, > where most never get there. Seconds are steps at the run's "
        "own speed. Paid after: the number of targets whose savings make up for the source's "
        "pretraining on this machine."
    )
    return Table(head, rows, note=note)


def _final(arm: Arm, metric: str) -> float | None:
    scores = [points[-1][1] for points in _curves(arm, metric)]
    return sum(scores) / len(scores) if scores else None


def _curves(arm: Arm, metric: str) -> list[list[tuple[float, float]]]:
    found = []
    for run in arm.done().values():
        points = [
            (float(entry["step"]), float(entry[f"validation_{metric}"]))
            for entry in run.get("curve") or []
            if entry.get(f"validation_{metric}") is not None
        ]
        if points:
            found.append(points)
    return found


def _median(arm: Arm, metric: str, target: float) -> Time | None:
    times = [
        time_to_accuracy([s for s, _ in points], [v for _, v in points], target)
        for points in _curves(arm, metric)
    ]
    return median_time(times) if times else None


def _seconds(arm: Arm, metric: str, target: float) -> float | None:
    """Median steps times the seconds that a step of this arm takes."""
    steps, seconds = _median(arm, metric, target), mean_of(arm, _fit_seconds)
    budgets = [int(run["budget_steps"]) for run in arm.runs.values() if run.get("budget_steps")]
    if steps is None or seconds is None or not budgets:
        return None
    return steps.value * seconds / (sum(budgets) / len(budgets))


def _fit_seconds(run: Record) -> float | None:
    return (run.get("cost") or {}).get("fit_seconds")


def _pays(arm: Arm, base: float | None, own: float | None) -> str:
    cost = mean_of(arm, lambda run: (run.get("cost") or {}).get("source_seconds"))
    if cost is None or base is None or own is None:
        return NOTHING
    if base <= own:
        return "never"
    return f"{break_even_targets(cost, base - own):.0f} targets"
