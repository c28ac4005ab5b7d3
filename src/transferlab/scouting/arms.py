"""The record of what is said of a source before anything is adapted."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from transferlab.errors import UserError
from transferlab.evaluation import sample
from transferlab.planning import Plan, plan_run
from transferlab.records import Record, sha256_record
from transferlab.representation import (
    coral_distance,
    frechet_distance,
    frechet_floor,
    mmd2,
    mmd_p,
    proxy_a_distance,
)
from transferlab.scouting.features import device_for, extract
from transferlab.scouting.sources import Announce, Source, open_source, probabilities
from transferlab.scouting.target import Target, open_target
from transferlab.split_data import data_name
from transferlab.transferability.alarms import knows_no_labels, reads_no_better, share
from transferlab.transferability.scoring import Score, score_all

GAP_IMAGES = 1000
"""Images at the most of either side of a domain gap."""
FEWEST = 4
"""Images of either side that a gap takes."""


def silent(line: str) -> None:
    """Announce nothing."""
    del line


def predict_arms(
    configs: Sequence[DictConfig], *, cell: str = "all", announce: Announce = silent
) -> list[Record]:
    """Predict for every source that some arms of one cell start from.

    Args:
        configs: of the arms, as composed; the seed of each draws the target's subset. Arms from
            the same source share a record; arms without a source have none.
        cell: its id, which the records repeat.
        announce: told in a line what takes time, before it does.

    Returns:
        a record a source, in the order of the arms.

    Raises:
        UserError: data or weights that the user can mend.
    """
    predictor = Predictor(announce)
    found: dict[str, Record] = {}
    for cfg in configs:
        if cfg.source.kind == "none" or cfg.strategy.init == "random":
            continue
        plan = plan_run(cfg)
        found.setdefault(source_key(plan), predictor.predict(plan) | {"cell": cell})
    return list(found.values())


def source_key(plan: Plan) -> str:
    """Name what a prediction depends on: source, backbone, and the target's training images."""
    known = plan.identity
    parts = [known["source"], known["backbone"], known["target"], known["split"], known["subset"]]
    named = [data_name(plan.cfg.source), known["seed"], plan.cfg.metric.name]
    return sha256_record([*parts, *named])


class Predictor:
    """Predict for several sources; what they share is computed once.

    Args:
        announce: told in a line what takes time, before it does.
    """

    def __init__(self, announce: Announce = silent) -> None:
        self._announce = announce
        self._targets: dict[str, Target] = {}
        self._records: dict[str, Record] = {}

    def predict(self, plan: Plan) -> Record:
        """Return the record of the source that a planned run starts from; nothing is adapted.

        Raises:
            UserError: weights that can't be read or do not fit, features that are not finite, or
                training images of one class.
        """
        key = source_key(plan)
        if key not in self._records:
            if plan.cfg.trainer.threads:
                torch.set_num_threads(plan.cfg.trainer.threads)
            target = self._target(plan)
            self._records[key] = _record(plan, target, open_source(plan, self._announce))
        return dict(self._records[key])

    def _target(self, plan: Plan) -> Target:
        known = plan.identity
        key = sha256_record(
            [known[part] for part in ("backbone", "target", "split", "subset", "seed")]
        )
        if key not in self._targets:
            self._targets[key] = open_target(plan)
        return self._targets[key]


def _record(plan: Plan, target: Target, source: Source) -> Record:
    cfg, device = plan.cfg, device_for(plan.cfg)
    features = extract(source.model, target.data, target.positions, device)
    _require_finite(features, plan)
    probs = None
    if source.classifier is not None:
        probs = probabilities(source.classifier, torch.from_numpy(features)).numpy()
    scores = score_all(features, target.labels, source_probs=probs, groups=target.groups)
    balanced = target.metric == "macro_recall"
    own = target.recognised(features)
    alarms = {
        "w1": reads_no_better(own, target.baselines, target.labels, balanced),
        "w2": knows_no_labels(scores["logme"].z, scores["regularized_h_score"].z),
    }
    counts = np.unique(target.labels, return_counts=True)[1]
    gap, gap_reason = _gap(source, features, device)
    return {
        "cell": "all",
        "source": data_name(cfg.source),
        "source_kind": cfg.source.kind,
        "source_id": plan.identity["source"],
        "backbone": str(cfg.backbone.name),
        "target": data_name(cfg.target),
        "shots": cfg.target.shots,
        "fraction": cfg.target.fraction,
        "seed": cfg.seed,
        "n_items": len(target.labels),
        "n_train": len(plan.train),
        "n_classes": len(counts),
        "smallest_class": int(counts.min()),
        "smallest_train_class": _smallest(plan),
        "n_features": features.shape[1],
        "neighbours": {
            "k": target.k,
            "metric": target.metric,
            "source": share(own, target.labels, balanced),
            **{n: share(f, target.labels, balanced) for n, f in target.baselines.items()},
        },
        "scores": {name: _plain(score) for name, score in scores.items()},
        "alarms": {name: asdict(alarm) for name, alarm in alarms.items()},
        "gap": gap,
        "gap_reason": gap_reason,
    }


def _gap(
    source: Source, target: NDArray[np.float64], device: torch.device
) -> tuple[Record | None, str]:
    """Return how far the source's training images lie from the target's, in its own features."""
    if source.data is None or source.train is None:
        return None, "the source's images are not at hand"
    if min(len(source.train), len(target)) < FEWEST:
        return None, f"fewer than {FEWEST} images on a side"
    x = extract(source.model, source.data, sample(source.train, GAP_IMAGES), device)
    y = target[sample(np.arange(len(target)), GAP_IMAGES)]
    return {
        "n_source": len(x),
        "n_target": len(y),
        "proxy_a": proxy_a_distance(x, y),
        "frechet": frechet_distance(x, y),
        "frechet_floor": max(frechet_floor(x), frechet_floor(y)),
        "mmd2": mmd2(x, y),
        "mmd_p": mmd_p(x, y),
        "coral": coral_distance(x, y),
    }, ""


def _require_finite(features: NDArray[np.float64], plan: Plan) -> None:
    bad = int((~np.isfinite(features)).any(axis=1).sum())
    if bad:
        raise UserError(
            f"source {data_name(plan.cfg.source)}: its features of {bad} of {len(features)} target "
            "images are NaN or infinite. Its weights are damaged, or of another backbone; leave it "
            "out."
        )


def _smallest(plan: Plan) -> int:
    labels = np.asarray(plan.data.store.labels)[plan.train]
    return int(np.unique(labels, return_counts=True)[1].min())


def _plain(score: Score) -> Record:
    found: Record = {"value": score.value, "z": score.z}
    return found | ({"reason": score.reason} if score.reason else {})
