"""A source as a frozen model: its backbone, its own classifier, its own images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from transferlab.assembling import build_model
from transferlab.backbones.opening import is_module
from transferlab.backbones.timm import create_backbone, feature_width
from transferlab.backbones.weights import StateDict, load_backbone
from transferlab.errors import UserError
from transferlab.model import TransferModel
from transferlab.planning import Plan, plan_source
from transferlab.run import made, starting_weights
from transferlab.split_data import Data, Positions, data_name

Announce = Callable[[str], None]
OWN_HEAD = {"head.weight", "head.bias"}
"""A linear head in the layout of our own runs."""


@dataclass(frozen=True)
class Source:
    """What a source brings.

    Attributes:
        model: its backbone, under a head that is not used.
        classifier: (n, F) features to (n, S) logits of the source's own classes, or None.
        data: the source's images, or None where they are not at hand.
        train: positions of its training images.
    """

    model: TransferModel
    classifier: nn.Module | None
    data: Data | None = None
    train: Positions | None = None


def open_source(plan: Plan, announce: Announce) -> Source:
    """Read a source's weights; the run behind a dataset is made where it is missing.

    Args:
        plan: of a run that starts from the source; it is not made.
        announce: told in a line what takes time, before it does.

    Raises:
        UserError: weights that can't be read or do not fit, or a source run that did not train.
    """
    cfg = plan.cfg
    own = plan_source(cfg) if cfg.source.kind == "dataset" else None
    if own is not None:
        announce_source_run(own, announce)
    state = starting_weights(cfg)
    assert state is not None  # callers skip what has no source
    size = plan.data.preprocessing.size
    pooled = cfg.copy()
    pooled.head = OmegaConf.create({"_target_": "transferlab.heads.linear.LinearHead"})
    model = build_model(pooled, len(plan.data.store.classes), size)
    where = f"source {cfg.source.name}" + (f" ({cfg.source.path})" if cfg.source.path else "")
    rows = load_backbone(model.backbone, state, where)
    if cfg.source.classes is not None and rows is not None and cfg.source.classes != rows:
        raise UserError(
            f"source.classes={cfg.source.classes}, but the classifier in {where} has {rows} rows. "
            f"Set source.classes={rows}, or give the checkpoint that you mean."
        )
    classifier = _classifier(cfg, state, rows, size, feature_width(model.backbone))
    if own is None:
        return Source(model, classifier)
    return Source(model, classifier, own.data, own.train)


def announce_source_run(own: Plan, announce: Announce) -> None:
    """Say that a source run is about to be made, where it is."""
    if made(own) is None:
        announce(
            f"pretraining on {data_name(own.cfg.target)}: {own.cfg.budget.steps} steps of "
            f"{own.cfg.batch_size}, made once and kept in {own.directory}"
        )


def probabilities(classifier: nn.Module, features: Tensor) -> Tensor:
    """Return the (n, S) float64 probabilities of the source's classes for (n, F) features."""
    with torch.inference_mode():
        logits: Tensor = classifier.eval()(features.float())
        return logits.double().softmax(dim=1)


def _classifier(
    cfg: DictConfig, state: StateDict, rows: int | None, size: int, width: int
) -> nn.Module | None:
    """Find the linear layer that the source told its own classes with; None where there is none."""
    if {key for key in state if key.startswith("head.")} == OWN_HEAD and any(
        key.startswith("backbone.") for key in state
    ):
        head = nn.Linear(width, len(state["head.weight"]))
        wanted = {"weight": state["head.weight"], "bias": state["head.bias"]}
        if wanted["weight"].shape != head.weight.shape:
            return None
        head.load_state_dict(wanted)
        return head
    if is_module(cfg.backbone):
        return None
    kwargs: Any = OmegaConf.to_container(cfg.backbone.kwargs, resolve=True)
    found = None
    if rows is not None:
        found = create_backbone(cfg.backbone.name, {**kwargs, "num_classes": rows}, size)
        try:
            load_backbone(found, state, "the source's classifier")
        except UserError:  # a classifier of another layout: the backbone alone is of use
            return None
    elif cfg.source.kind == "published" and cfg.source.path is None:
        name = f"{cfg.backbone.name}.{cfg.source.tag}" if cfg.source.tag else cfg.backbone.name
        try:
            found = timm.create_model(name, pretrained=True, **kwargs)
        except Exception:  # the hub's client raises many kinds; the backbone is here already
            return None
    layer = found.get_classifier() if found is not None else None  # type: ignore[operator]
    fits = isinstance(layer, nn.Linear) and layer.in_features == width
    return layer if fits else None
