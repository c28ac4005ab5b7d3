"""The report's tables for one cell: cost, overfitting, baselines, what was compared with what."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from transferlab.analysis.arms import Arm, Cell
from transferlab.analysis.formats import (
    NOTHING,
    count,
    duration,
    large,
    listing,
    percent,
    points,
    ratio,
    short,
    size,
)
from transferlab.analysis.gains import arm_name
from transferlab.analysis.load import Study
from transferlab.records import Record

BASELINES = {
    "majority": "always the most frequent class",
    "logistic_regression": "logistic regression on raw pixels",
    "knn": "nearest neighbours on raw pixels",
}


@dataclass(frozen=True)
class Table:
    """A table of texts: the first columns are words, the others numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    note: str = ""


def cost_ratio(arm: Arm, scratch: Arm | None) -> float | None:
    """How many times scratch's fitting time an arm takes, replicate for replicate on average."""
    own = mean_of(arm, lambda run: (run.get("cost") or {}).get("fit_seconds"))
    other = mean_of(scratch, lambda run: (run.get("cost") or {}).get("fit_seconds"))
    return own / other if own is not None and other else None


def mean_of(arm: Arm | None, field: Callable[[Record], float | None]) -> float | None:
    """The mean of a field over an arm's finished runs, None where no run states it."""
    values = _values(arm, field)
    return math.fsum(values) / len(values) if values else None


def costs(cell: Cell) -> Table:
    """Seconds, memory, parameters and multiply-adds of a mean run of every arm."""
    fields: list[tuple[str, Callable[[float | None], str]]] = [
        ("fit_seconds", duration),
        ("total_seconds", duration),
        ("peak_memory_bytes", size),
        ("trainable_parameters", large),
        ("parameters", large),
        ("multiply_adds_per_image", large),
        ("training_multiply_adds", large),
    ]
    scratch = cell.scratch()
    rows = []
    for arm in (arm for arm in cell.arms if arm.done()):
        against = [ratio(cost_ratio(arm, scratch))] if scratch else []
        figures = [form(mean_of(arm, _cost(field))) for field, form in fields]
        rows.append([arm_name(arm), *against, *figures])
    head = ["arm", *(["fit time against scratch"] if scratch else []), "fit", "with evaluation"]
    head += ["peak memory", "trainable", "parameters"]
    return Table([*head, "multiply-adds an image", "multiply-adds to train"], rows)


def overfitting(cell: Cell) -> Table:
    """Train minus test of every arm."""
    metric = str(cell.first("metric") or "accuracy")
    rows = []
    for arm in (arm for arm in cell.arms if arm.done()):
        train, validation, test = (
            mean_of(arm, _score(split, metric)) for split in ("train", "validation", "test")
        )
        gap = train - test if train is not None and test is not None else None
        rows.append([arm_name(arm), percent(train), percent(validation), percent(test)])
        rows[-1].append(points(gap))
    return Table(["arm", "train", "validation", "test", "train − test"], rows)


def baselines(cell: Cell) -> Table:
    """What needs no training stands beside every arm's test score, best first."""
    metric = str(cell.first("metric") or "accuracy")
    scored: list[tuple[float, list[str]]] = []
    for arm in cell.arms:
        values = _values(arm, _score("test", metric))
        if values:
            scored.append(_scored(arm_name(arm), values))
    for key, words in BASELINES.items():
        # Replicates of one seed share their data, so a baseline counts once for each seed.
        by_seed = {
            seed: float(run["baselines"][key][metric])
            for arm in cell.arms
            for seed, run in sorted(arm.runs.items())
            if (run.get("baselines") or {}).get(key, {}).get(metric) is not None
        }
        if by_seed:
            scored.append(_scored(words, list(by_seed.values())))
    rows = [row for _, row in sorted(scored, key=lambda pair: -pair[0])]
    return Table(["", f"test {metric.replace('_', ' ')}", "spread (sd)", "runs"], rows)


def compared(cell: Cell) -> Table:
    """Every arm's settings, trials, seeds and budget, side by side."""
    rows = []
    for arm in cell.arms:
        tuning = arm.tuning
        settings = ", ".join(f"{k}={_setting(v)}" for k, v in arm.settings.items()) or NOTHING
        edge = "yes" if tuning.get("rate_at_edge") else "no" if tuning else NOTHING
        rows.append(
            [
                arm_name(arm),
                settings,
                _trials(arm),
                str(arm.trials_in_runs),
                edge,
                spans(tuning.get("seeds", [])),
                spans(arm.runs.keys()),
                _common(arm, "budget_steps"),
                _common(arm, "batch_size"),
                short(next(iter(arm.runs.values())).get("source_id")) if arm.runs else NOTHING,
            ]
        )
    head = ["arm", "settings", "trials", "trials in a run", "best rate at an end"]
    head += ["tuned on seeds", "replicated on seeds", "steps", "batch", "source's id"]
    return Table(head, rows, words=2)


def _trials(arm: Arm) -> str:
    """How many fits tuning was given, and how many of them it stopped early."""
    if not arm.tuning:
        return "not tuned"
    stopped = int(arm.tuning.get("pruned") or 0)
    return f"{arm.trials}, {stopped} stopped early" if stopped else str(arm.trials)


def _setting(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shared(cell: Cell) -> list[tuple[str, str]]:
    """What all arms of a cell have in common, by name."""
    runs = [run for arm in cell.arms for run in arm.runs.values()]
    if not runs:
        return []
    splits = sorted({str(run.get("split_sha256")) for run in runs})
    return [
        ("backbone", listing(sorted({str(run.get("backbone")) for run in runs}))),
        ("head", listing(sorted({str(run.get("head")) for run in runs}))),
        ("image size", listing(sorted({f"{run.get('image_size')} px" for run in runs}))),
        ("classes", _classes(runs[0])),
        ("images", _images(runs[0])),
        ("validation labels", _validation(runs)),
        *_tuned_at(cell),
        ("data fingerprint", _hashes(runs, "data_fingerprint")),
        ("preprocessing", _hashes(runs, "preprocessing_sha256")),
        ("test items", _hashes(runs, "test_ids_sha256")),
        ("splits", _some([short(split) for split in splits])),
    ]


def failures(study: Study) -> Table:
    """Runs that diverged or failed, and why."""
    fields = ("source", "strategy", "seed", "status")
    rows = [
        [short(run_id, 16), *(str(run[key]) for key in fields), str(run.get("reason") or NOTHING)]
        for run_id, run in study.runs.items()
        if run["status"] != "done"
    ]
    return Table(["run", "source", "strategy", "seed", "status", "why"], rows, words=6)


def spans(seeds: Iterable[int]) -> str:
    """Seeds as spans: ``0–7, 9``."""
    ordered = sorted(int(seed) for seed in seeds)
    parts: list[list[int]] = []
    for seed in ordered:
        if parts and seed == parts[-1][1] + 1:
            parts[-1][1] = seed
        else:
            parts.append([seed, seed])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in parts) or NOTHING


def _values(arm: Arm | None, field: Callable[[Record], float | None]) -> list[float]:
    found = [field(run) for run in arm.done().values()] if arm else []
    return [float(value) for value in found if value is not None]


def _cost(field: str) -> Callable[[Record], float | None]:
    return lambda run: (run.get("cost") or {}).get(field)


def _score(split: str, metric: str) -> Callable[[Record], float | None]:
    return lambda run: (run["metrics"].get(split) or {}).get(metric)


def _scored(name: str, values: Sequence[float]) -> tuple[float, list[str]]:
    mean = math.fsum(values) / len(values)
    spread = math.fsum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
    deviation = percent(spread**0.5) if len(values) > 1 else NOTHING
    return mean, [name, percent(mean), deviation, str(len(values))]


def _common(arm: Arm, field: str) -> str:
    return listing(sorted({str(run.get(field)) for run in arm.runs.values()})) or NOTHING


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def _tuned_at(cell: Cell) -> list[tuple[str, str]]:
    shots = sorted({int(arm.tuning["shots"]) for arm in cell.arms if arm.tuning.get("shots")})
    return [("tuned at", listing([count(k, "shot") + " a class" for k in shots]))] if shots else []


def _hashes(runs: Sequence[Record], field: str) -> str:
    return ", ".join(short(value) for value in sorted({str(run.get(field)) for run in runs}))


def _classes(run: Record) -> str:
    names = [str(name) for name in run.get("classes") or []]
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"{len(names)}: {shown}"


def _images(run: Record) -> str:
    parts = [(run.get(f"n_{split}"), split) for split in ("train", "validation", "test")]
    return ", ".join(f"{number:,} {split}" for number, split in parts if number is not None)


def _validation(runs: Sequence[Record]) -> str:
    stated = [run["validation_labels"] for run in runs if run.get("validation_labels")]
    if not stated:
        return NOTHING
    text = count(int(stated[0]["count"]), "label")
    if any(labels.get("assumption") for labels in stated):
        text += ", an assumption: with fewer than 10 shots a class nobody would have that many, "
        text += "and every arm's rates were chosen on them"
    return text
