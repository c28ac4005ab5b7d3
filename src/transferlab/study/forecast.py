"""The dry run: what would run, how long, how much disk, and what difference it could show."""

import time
from collections.abc import Callable

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from transferlab import probes
from transferlab.assembling import build_model
from transferlab.auto_depth import number_of_fits
from transferlab.backbones.layout import lay_out
from transferlab.fitting import strategy_callbacks
from transferlab.memory import Memory, expected_memory
from transferlab.phase_table import phase_rows
from transferlab.planning import Plan, plan_run
from transferlab.refitting import needs_training
from transferlab.run import made
from transferlab.stats.power import smallest_difference, typical_item_variance
from transferlab.study.composition import is_frozen, point
from transferlab.study.conduct import Study
from transferlab.study.disk import room_text
from transferlab.study.space import corners
from transferlab.study.state import ArmState, CellState
from transferlab.study.tuning import points

ASSUMED_ACCURACY = 0.85
ASSUMED_RUN_SD = 0.02
"""Spread over replicates of a paired difference, as small targets show it at 5 to 20 shots."""
ENOUGH_SECONDS = 3.0
"""Seconds after which no further step is timed."""
STEP_OF_A_HEAD = 0.02
"""What a step on features takes of one through the whole of a small model, about."""
OVERHEAD = 0.4
"""Seconds that a run takes besides its steps, on an idle machine."""


def show_run(plan: Plan) -> None:
    """Print what one run would be."""
    cfg, console = plan.cfg, Console()
    frozen = is_frozen(cfg)
    fits = number_of_fits(plan)
    seconds = _seconds_per_step(plan, frozen) * _steps(plan) * fits
    each = "" if fits == 1 else f"{fits} fits, of which validation chooses, each of "
    console.print(
        f"run {plan.run_id}: {cfg.strategy.name} from {cfg.source.name} on {cfg.target.name}, "
        f"{len(plan.train)} training, {len(plan.data.splits.validation)} validation and "
        f"{len(plan.data.splits.test)} test images of {plan.data.preprocessing.size} px, "
        f"{each}{cfg.budget.steps} steps of {cfg.batch_size}: about {_span(seconds)} of training, "
        f"{expected_memory(plan)}.\n"
        f"It would lie in {plan.directory}" + (" and is done." if made(plan) else "."),
        highlight=False,
        soft_wrap=True,
    )
    if cfg.budget.steps:
        _show_phases(plan, console)


def _show_phases(plan: Plan, console: Console) -> None:
    """Print what trains when, how fast and in which mode; nothing is trained for it."""
    cfg = plan.cfg
    model = build_model(cfg, len(plan.data.store.classes), plan.data.preprocessing.size)
    callbacks = strategy_callbacks(cfg)
    for callback in callbacks:
        callback.adapt(model)
    if not needs_training(model, all(c.trains_backbone() for c in callbacks)):
        console.print("Nothing trains by gradients: the head is fitted in closed form.")
        return
    rows = phase_rows(cfg, model, callbacks, len(plan.train) / int(cfg.batch_size))
    table = Table(title=f"{cfg.strategy.name}: phases and layer groups", title_justify="left")
    for column in ("phase", "steps", "group"):
        table.add_column(column, no_wrap=True)
    for column in ("params", "trained", "peak rate", "decay"):
        table.add_column(column, justify="right")
    table.add_column("norms")
    last = ""
    for row in rows:
        if last and row.phase != last:
            table.add_section()
        first = row.phase != last
        last = row.phase
        share = row.trained / row.parameters if row.parameters else 0.0
        table.add_row(
            escape(row.phase) if first else "", row.steps if first else "", escape(row.group),
            f"{row.parameters:,}", f"{share:.0%}", _range(row.rates),
            "-" if row.weight_decay is None else f"{row.weight_decay[1]:.4g}", row.norms,
        )  # fmt: skip
    console.print(table)
    trained = {name for row in rows for name in row.names}
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    console.print(
        f"{sum(sizes[n] for n in trained):,} of {sum(sizes.values()):,} parameters train at some "
        "time; decay: weight decay, without norms and biases. " + _over_time(cfg),
        highlight=False,
        soft_wrap=True,
    )


def _over_time(cfg: DictConfig) -> str:
    if cfg.scheduler is None:
        return "Rates over time: the strategy's own, or constant."
    return f"Rates over time: {str(cfg.scheduler.get('_target_')).rpartition('.')[2]}."


def _range(values: tuple[float, float] | None) -> str:
    if values is None:
        return "-"
    low, high = (f"{value:.4g}" for value in values)
    return low if low == high else f"{low} to {high}"


def show_study(study: Study) -> None:
    """Print a study's arms, runs, time, disk, and the smallest difference it can show."""
    console = Console()
    timer = _Timer()
    seconds, runs = 0.0, 0
    for cell in study.cells:
        table = Table(title=f"{study.cfg.name}: {cell.cell.id}", title_justify="left")
        for column in ("arm", "role", "tuning runs", "replicates", "done", "s a run"):
            table.add_column(column, justify="left" if column in ("arm", "role") else "right")
        for state in cell.arms:
            tuning, plans = _runs(study, cell, state)
            each = timer.run(plans[0])
            done = sum(made(plan) is not None for plan in plans)
            seconds += each * (tuning + len(plans) - done)
            runs += tuning + len(plans)
            table.add_row(
                escape(state.arm.id), state.arm.role, str(tuning), str(len(plans)), str(done),
                f"{each:.1f}",
            )  # fmt: skip
        console.print(table)
        console.print(_power(study, cell), highlight=False)
    workers = study.where.workers
    console.print(
        f"{runs} runs and their source runs, about {_span(seconds / workers)} with {workers} at a "
        f"time (timed here on a few steps; a grid that must grow adds to it), {room_text(study)}. "
        f"The largest run takes {timer.largest}.",
        highlight=False,
        soft_wrap=True,
    )


def _runs(study: Study, cell: CellState, state: ArmState) -> tuple[int, list[Plan]]:
    tuning = study.trials(cell) * study.tuning_seeds()
    tried = corners(cell.space) if cell.space else points(cell.grid)
    settings = dict(tried[0])
    plans = [
        plan_run(point(state.cfg, seed, "replicate", settings)) for seed in study.declaration.seeds
    ]
    return tuning, plans


def _power(study: Study, cell: CellState) -> str:
    plan = plan_run(cell.arms[0].cfg)
    verdict = study.cfg.study.verdict if study.cfg.study is not None else None
    alpha = verdict.alpha if verdict is not None else 0.05
    compared = [state for state in cell.arms if state.arm.role == "transfer"]
    n, items = len(study.declaration.seeds), len(plan.data.splits.test)
    looks = len(study.looks())
    if n < 2 or not compared:
        return "No verdict: it takes a transfer arm and at least two seeds."
    size = smallest_difference(
        n,
        items,
        run_sd=ASSUMED_RUN_SD,
        item_variance=typical_item_variance(ASSUMED_ACCURACY),
        alpha=alpha / looks,
        m=len(compared),
    )
    return (
        f"With {n} seeds, {_looks(study)}{items} test images and a family of {len(compared)}, a "
        f"true difference of {100 * size:.1f} points shows with 80 % power (assuming "
        f"{ASSUMED_ACCURACY:.0%} accuracy and a spread of {100 * ASSUMED_RUN_SD:.0f} points over "
        "seeds)."
    )


def _looks(study: Study) -> str:
    looks = study.looks()
    return f"{len(looks)} looks ({', '.join(map(str, looks))} seeds), " if len(looks) > 1 else ""


class _Timer:
    """Seconds and memory of a run, found once for each kind of run."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], float] = {}
        self.largest: Memory | None = None

    def run(self, plan: Plan) -> float:
        cfg = plan.cfg
        frozen = is_frozen(cfg)
        key = (cfg.backbone.name, plan.data.preprocessing.size, cfg.batch_size, frozen)
        if key not in self._known:
            self._known[key] = _seconds_per_step(plan, frozen)
            memory = expected_memory(plan)
            self.largest = max(self.largest or memory, memory, key=lambda one: one.total)
        return self._known[key] * _steps(plan) * number_of_fits(plan) + OVERHEAD


def _steps(plan: Plan) -> float:
    """Return how often a batch goes through the whole model in a fit; evaluation is left out."""
    cfg = plan.cfg
    steps = float(cfg.budget.steps)
    if not probes.eligible(plan) or (cfg.augmentation and not cfg.views):
        return steps
    once = len(plan.train) * int(cfg.views or 1) / int(cfg.batch_size)
    return min(once + STEP_OF_A_HEAD * steps, steps)


def _seconds_per_step(plan: Plan, frozen: bool) -> float:
    """Time a few steps on random input, forward and backward."""
    cfg, size = plan.cfg, plan.data.preprocessing.size
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    model = lay_out(build_model(cfg, len(plan.data.store.classes), size))
    if frozen:
        model.backbone.requires_grad_(False)
    images = torch.randn(cfg.batch_size, len(plan.data.preprocessing.mean), size, size)
    images = images.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        logits = model(images)
        if logits.requires_grad:  # a closed-form head on a frozen backbone has no gradient
            logits.logsumexp(1).sum().backward()

    return _median_seconds(step)


def _median_seconds(step: Callable[[], None], warmup: int = 2, count: int = 5) -> float:
    times: list[float] = []
    for _ in range(warmup + count):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
        if sum(times) > ENOUGH_SECONDS:
            break  # a large model: one or two steps say enough
    kept = sorted(times[warmup:] or times[-1:])
    return kept[len(kept) // 2]


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
