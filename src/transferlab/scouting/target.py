"""A target as every source is asked about it: its training images, and what needs no source."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from transferlab.assembling import build_model
from transferlab.baselines import raw_pixels
from transferlab.errors import UserError
from transferlab.evaluation import choose_metric, sample
from transferlab.planning import Plan
from transferlab.scouting.features import calibrate_norms, device_for, extract
from transferlab.split_data import Data, Positions
from transferlab.transferability.alarms import neighbours_for
from transferlab.transferability.neighbours import knn_correct_of

IMAGES = 2000
"""Target images at the most, evenly spread over the training subset: scores pair all with all."""
RANDOM, PIXELS = "random_init", "raw_pixels"


@dataclass(frozen=True)
class Target:
    """A target's training images under one backbone's preprocessing.

    Attributes:
        data: the whole target; nothing but ``positions`` of it is read.
        positions: of training images.
        labels: (N,).
        groups: (N,) what images belong together, or None.
        k: neighbours that vote.
        metric: ``accuracy`` or ``macro_recall``, as the runs would choose.
        baselines: for a random network and for raw pixels, (N,) whether an image's neighbours
            vote for its class, the image left out.
    """

    data: Data
    positions: Positions
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    k: int
    metric: str
    baselines: dict[str, NDArray[np.bool_]]

    def recognised(self, features: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return (N,) whether an image's neighbours in these features vote for its class."""
        return knn_correct_of(features, self.k, self.groups)(self.labels)


def open_target(plan: Plan) -> Target:
    """Read a run's training images, never others, and score them without any source.

    Raises:
        UserError: a single class among them.
    """
    cfg, data = plan.cfg, plan.data
    positions = sample(plan.train, IMAGES)
    labels = np.asarray(data.store.labels)[positions]
    if len(np.unique(labels)) < 2:
        raise UserError(
            f"the {len(positions)} training images are of one class, "
            f"{data.store.classes[int(labels[0])]!r}: nothing to tell apart. Set target.shots=null "
            "or give images of other classes."
        )
    groups = None if data.groups is None else data.groups[positions]
    if groups is not None and len(np.unique(groups)) < 2:
        groups = None
    metric = choose_metric(cfg.metric.name, data.store.labels, len(data.store.classes))
    target = Target(data, positions, labels, groups, neighbours_for(labels), metric, {})
    device = device_for(cfg)
    pooled = cfg.copy()
    pooled.head = OmegaConf.create({"_target_": "transferlab.heads.linear.LinearHead"})
    model = build_model(pooled, len(data.store.classes), data.preprocessing.size)
    calibrate_norms(model, data, positions, device)
    target.baselines[RANDOM] = target.recognised(extract(model, data, positions, device))
    pixels = raw_pixels(data.store, positions).astype(np.float64)
    target.baselines[PIXELS] = target.recognised(pixels)
    return target
