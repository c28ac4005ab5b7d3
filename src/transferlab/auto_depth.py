"""A run's fits: one, or one for each candidate of a strategy that chooses its depth."""

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from transferlab import probes
from transferlab.assembling import build_model
from transferlab.backbones.weights import StateDict
from transferlab.building import build
from transferlab.callbacks.auto_depth import AutoDepth, phases_of
from transferlab.callbacks.cost import Cost
from transferlab.callbacks.history import History
from transferlab.checkpoints import FOLDER
from transferlab.collectives import first_rank
from transferlab.errors import UserError
from transferlab.evaluation import choose_metric, gather, gathered
from transferlab.fitting import Fit
from transferlab.fitting import fit as fit_once
from transferlab.forward_graph import NoCutError
from transferlab.machine import ranks
from transferlab.module import DivergedError
from transferlab.parts import Parts
from transferlab.planning import Plan
from transferlab.records import write_text
from transferlab.stats.one_standard_error import OneStandardError, one_standard_error
from transferlab.trainers import quiet

METRICS = "metrics.jsonl"


@dataclass
class _Candidate:
    """What is kept of one depth's fit: on the CPU, without its trainer, optimizer and data."""

    depth: int
    state: dict[str, Any]
    correct: NDArray[np.bool_]
    directory: Path
    history: History
    cost: Cost
    selected_step: int
    resumed: list[int]


def fit(plan: Plan, weights: StateDict | None, directory: Path, loggers: list[Logger]) -> Fit:
    """Train one run: one fit, or where the strategy has :class:`AutoDepth` one fit a depth.

    Every depth starts from the same weights and gets the whole budget. The smallest one whose
    validation score is within one standard error of the best is the run: weights, curve and lines
    are those of a run of that depth alone, the cost is that of all. A candidate that diverges is a
    trial without a score, and the run diverges where all do. A run that was killed goes on inside
    the candidate that it was in, and makes up what the ones before did after their last
    checkpoints.

    Args:
        plan: the run.
        weights: that the backbone starts from; None leaves it random.
        directory: for the JSON lines and the checkpoints.
        loggers: of the trackers; they see the chosen candidate alone.

    Raises:
        UserError: found before the first optimiser step.
        DivergedError: the loss became NaN or infinite, in every candidate.
    """
    name = _declared(plan.cfg)
    if name is None:
        return _fit_one(plan, weights, directory, loggers)
    if plan.cfg.checkpoint.keep == "all":
        raise UserError(
            f"checkpoint.keep=all: strategy={plan.cfg.strategy.name} makes several fits, whose "
            "validations are of different models. Set checkpoint.keep=last or none."
        )
    found: list[_Candidate] = []
    trials: list[dict[str, Any]] = []
    last: Fit | None = None
    error: DivergedError | None = None
    parts, depths = _candidates(plan, name)
    for depth in depths:
        groups = [group.name for group in parts.groups[-depth:]]
        trials.append({"depth": depth, "groups": groups, "score": None, "chosen": False})
        try:
            last, candidate = _fit_depth(plan, name, depth, weights, directory)
            found.append(candidate)
        except DivergedError as diverged:
            if ranks(plan.cfg.trainer) > 1:
                raise  # one rank may have seen it alone: the others wait for this one
            error = diverged
            trials[-1]["reason"] = str(diverged)
    if last is None:
        assert error is not None
        raise error
    rule = _judge(plan, [candidate.correct for candidate in found])
    _note(trials, found, rule)
    winner = found[rule.chosen]
    last.module.model.load_state_dict(winner.state)
    _publish(winner.directory / METRICS, directory / METRICS, loggers)
    return replace(
        last,
        history=winner.history,
        cost=_sum([candidate.cost for candidate in found], winner.cost),
        selected_step=winner.selected_step,
        resumed=[step for candidate in found for step in candidate.resumed],
        trials=trials,
    )


def _fit_one(plan: Plan, weights: StateDict | None, directory: Path, loggers: list[Logger]) -> Fit:
    """Train a head on its features where that is all that a run does, else by Lightning's loop."""
    if probes.eligible(plan):
        with suppress(NoCutError):
            (found,) = probes.fit([plan], weights, [directory], [loggers])
            if isinstance(found, DivergedError):
                raise found
            return found
    return fit_once(plan, weights, directory, loggers)


def number_of_fits(plan: Plan) -> int:
    """Return how many fits of the whole budget a run makes."""
    name = _declared(plan.cfg)
    return 1 if name is None else len(_candidates(plan, name)[1])


def _declared(cfg: DictConfig) -> str | None:
    """Return the name of the strategy's AutoDepth, or None."""
    nodes = cfg.strategy.callbacks.items()
    return next((str(n) for n, node in nodes if isinstance(build(node), AutoDepth)), None)


def _candidates(plan: Plan, name: str) -> tuple[Parts, list[int]]:
    callback: AutoDepth = build(plan.cfg.strategy.callbacks[name])
    size = plan.data.preprocessing.size
    parts = Parts(build_model(plan.cfg, len(plan.data.store.classes), size), callback.groups)
    return parts, callback.candidates(parts)


def _fit_depth(
    plan: Plan, name: str, depth: int, weights: StateDict | None, directory: Path
) -> tuple[Fit, _Candidate]:
    """Fit one candidate below the run's checkpoints, which are removed when the run is done."""
    cfg = plan.cfg.copy()
    OmegaConf.set_struct(cfg, False)
    groups = cfg.strategy.callbacks[name].get("groups", "stages")
    cfg.strategy.callbacks[name] = {
        "_target_": "transferlab.callbacks.phases.Phases",
        "phases": phases_of(depth),
        "groups": groups,
    }
    place = directory / FOLDER / f"depth-{depth}"
    fitted = fit_once(replace(plan, cfg=cfg), weights, place, [])
    correct = _correct(plan, fitted)
    state = {k: v.detach().cpu().clone() for k, v in fitted.module.model.state_dict().items()}
    fitted.trainer.optimizers = []
    fitted.data.release()  # the next candidate has images of its own on the device
    return fitted, _Candidate(
        depth, state, correct, place,
        fitted.history, fitted.cost, fitted.selected_step, fitted.resumed,
    )  # fmt: skip


def _correct(plan: Plan, fitted: Fit) -> NDArray[np.bool_]:
    """Return whether the fitted model is right on each validation image."""
    positions = plan.data.splits.validation
    fitted.data.predicted = [positions]
    with quiet():
        outputs: Any = fitted.trainer.predict(fitted.module, datamodule=fitted.data)
    logits = gather(gathered(outputs), positions)
    answers: NDArray[np.bool_] = logits.argmax(axis=1) == plan.data.store.labels[positions]
    return answers


def _judge(plan: Plan, correct: list[NDArray[np.bool_]]) -> OneStandardError:
    store, positions = plan.data.store, plan.data.splits.validation
    groups = plan.data.groups
    return one_standard_error(
        np.stack(correct),
        store.labels[positions],
        metric=choose_metric(plan.cfg.metric.name, store.labels, len(store.classes)),
        groups=None if groups is None else groups[positions],
    )


def _note(trials: list[dict[str, Any]], found: list[_Candidate], rule: OneStandardError) -> None:
    """Write the scores into the trials."""
    by_depth = {trial["depth"]: trial for trial in trials}
    for index, candidate in enumerate(found):
        by_depth[candidate.depth] |= {
            "score": float(rule.scores[index]),
            "se": float(rule.se[index]),
            "behind": float(rule.behind[index]),
            "se_behind": float(rule.se_behind[index]),
            "chosen": index == rule.chosen,
            "fit_seconds": candidate.cost.fit_seconds,
        }


def _publish(lines: Path, path: Path, loggers: list[Logger]) -> None:
    """Make the chosen candidate's lines those of the run, on disk and in the trackers."""
    if first_rank():
        text = lines.read_text()
        write_text(path, text)
        for line in map(json.loads, text.splitlines()):
            step = line.pop("step")
            for logger in loggers:
                logger.log_metrics(line, step=step)


def _sum(costs: list[Cost], chosen: Cost) -> Cost:
    """Return what all candidates that ended cost together."""
    total = Cost()
    total.fit_seconds = sum(cost.fit_seconds for cost in costs)
    total.earlier_seconds = sum(cost.earlier_seconds for cost in costs)
    total.peak_memory_bytes = max(cost.peak_memory_bytes for cost in costs)
    total.trainable_parameters = chosen.trainable_parameters
    total.meter = chosen.meter
    counted = [cost.joules for cost in costs]
    total.joules = None if None in counted else sum(j for j in counted if j is not None)
    total.training_multiply_adds = sum(cost.training_multiply_adds for cost in costs)
    return total
