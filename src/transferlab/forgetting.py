"""What a run lost of its source, and how far its features moved from where they started."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from transferlab.assembling import build_model
from transferlab.backbones.layout import lay_out
from transferlab.backbones.weights import load_weights
from transferlab.datamodule import TransferDataModule
from transferlab.errors import UserError
from transferlab.evaluation import sample
from transferlab.fitting import Fit
from transferlab.layer_taps import GroupTaps
from transferlab.model import TransferModel
from transferlab.planning import Plan, plan_source
from transferlab.records import Record, read_json
from transferlab.representation import linear_cka, unbiased_linear_cka
from transferlab.split_data import Data, Positions, data_name, open_data
from transferlab.stats.metrics import accuracy
from transferlab.targets import require_allowed

PROBE_SAMPLE = 2000
"""Training images of the source at the most that a probe is fitted to."""
STRENGTHS = np.logspace(-2, 4, 7)
"""Ridge penalties that a probe chooses from by leave-one-out error, on standardised features."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Origin:
    """The run that a run's weights came from.

    Attributes:
        directory: where it lies.
        cfg: its own configuration.
        data: what it was trained on, with its own preprocessing.
        train: positions of its training images.
    """

    directory: Path
    cfg: DictConfig
    data: Data
    train: Positions


def wants_forgetting(cfg: DictConfig) -> bool:
    """Say whether a run is to measure its forgetting; tuning and source runs never do."""
    return bool(cfg.get("forgetting")) and cfg.purpose not in ("tune", "source")


def find_origin(cfg: DictConfig) -> Origin:
    """Return the source run of a run, with its data opened again.

    Raises:
        UserError: ``source.path`` is no finished run, or its data are not what they were.
    """
    if cfg.source.kind == "dataset":
        plan = plan_source(cfg)
        return Origin(plan.directory, plan.cfg, plan.data, plan.train)
    directory = Path(str(cfg.source.path)).expanduser()
    files = [directory / "run.json", directory / "config.yaml"]
    own = OmegaConf.load(files[1]) if all(path.is_file() for path in files) else None
    record = read_json(files[0]) if own is not None else {}
    if not isinstance(own, DictConfig) or record.get("status") not in ("done", "diverged"):
        raise UserError(
            f"forgetting=true: source.path={cfg.source.path} is not the directory of a finished "
            "run (run.json and config.yaml), so there is no source to score. Leave forgetting out."
        )
    require_allowed(own, cfg.allowed_packages)  # whoever made that run
    try:
        data = open_data(own.target, own.backbone)
    except UserError as error:
        raise UserError(f"forgetting=true: data of source.path={directory}: {error}") from error
    if data.store.fingerprint != record["data_fingerprint"]:
        raise UserError(
            f"forgetting=true: {data_name(own.target)} is not what the run in {directory} was "
            "trained on: its images changed. Bring them back, or leave forgetting out."
        )
    train = data.subset(own.target.shots, own.target.fraction, own.seed)
    return Origin(directory, own, data, train)


def measure_forgetting(plan: Plan, fitted: Fit) -> Record:
    """Score the source before and after the run, and compare the features of both.

    ``F_head`` is the source's accuracy under its own head, before minus after: the backbone as the
    run left it, its norm statistics and adapters included, below the head of the source run.
    ``F_probe`` is the same with a linear probe that is fitted anew on either side. Both are scored
    on the source's validation images. Drift is linear CKA between the activations that leave each
    layer group before and after, on the target's validation images. No test split is read.

    Sources: Davari et al., CVPR 2022 for the two forgettings; Kornblith et al., ICML 2019 for CKA.

    Args:
        plan: of the run.
        fitted: what its training left.

    Returns:
        the field ``forgetting`` of run.json.
    """
    origin = find_origin(plan.cfg)
    held, chosen = origin.data.splits.validation, sample(origin.train, PROBE_SAMPLE)
    classes = origin.data.store.labels
    views = _Views(origin, plan, fitted)
    heads, probes, groups = [], [], []
    for view in (views.before, views.after):
        with views.on_device(view):
            logits, features = views.of_source(view, held)
            heads.append(accuracy(logits.argmax(axis=1), classes[held]))
            known = views.of_source(view, chosen)[1]
            probes.append(_probe(known, classes[chosen], features, classes[held]))
            groups.append(views.of_target(view))
    return {
        "source": data_name(plan.cfg.source),
        "source_run": origin.directory.resolve().name,
        "n": len(held),
        "n_probe": len(chosen),
        "source_accuracy": {"before": heads[0], "after": heads[1]},
        "F_head": heads[0] - heads[1],
        "probe_accuracy": {"before": probes[0], "after": probes[1]},
        "F_probe": probes[0] - probes[1],
        "drift": [_drift(name, groups[0][name], groups[1][name]) for name in groups[0]],
    }


class _Views:
    """One run's model before and after, and what either makes of images."""

    def __init__(self, origin: Origin, plan: Plan, fitted: Fit) -> None:
        self.origin, self.plan, self.fitted = origin, plan, fitted
        store, run = origin.data.store, fitted.module.model
        size = origin.data.preprocessing.size
        self.before = build_model(origin.cfg, len(store.classes), size)
        self.before.load_state_dict(load_weights(origin.directory))
        if fitted.data.channels_last:
            self.before = lay_out(self.before)
        fitted.trainer.precision_plugin.convert_module(self.before)
        body = _completed(run.backbone, self.before.backbone)
        self.after = TransferModel(run.name, body, self.before.head)
        self.taps = GroupTaps(self.before, plan.cfg.strategy.groups)

    def on_device(self, view: TransferModel) -> "_Placed":
        """Keep a view on the run's device, in eval mode, for the length of a block."""
        return _Placed(view, self.fitted.trainer.strategy.root_device)

    def of_source(self, view: TransferModel, positions: Positions) -> tuple[Floats, Floats]:
        """Return (n, C) logits of the source's head and (n, F) pooled features."""
        logits, features = [], []
        for images in self._served(self.origin.data, positions):
            features.append(_array(view.backbone(images)))
            logits.append(_array(view(images)))
        return np.concatenate(logits), np.concatenate(features)

    def of_target(self, view: TransferModel) -> dict[str, Floats]:
        """Return the (n, D) pooled activations that leave each layer group."""
        found: dict[str, list[Floats]] = {}
        with self.taps.open(view.backbone) as read:
            for images in self._served(self.plan.data, self.plan.data.splits.validation):
                for name, values in read(images).items():
                    found.setdefault(name, []).append(_array(values))
        return {name: np.concatenate(batches) for name, batches in found.items()}

    def _served(self, data: Data, positions: Positions) -> Iterator[Tensor]:
        """Yield input batches as the run itself predicts: no gradient, its own precision."""
        trainer = self.fitted.trainer
        serve = TransferDataModule(
            data.store, train=positions, validation=positions, preprocessing=data.preprocessing,
            channels_last=self.fitted.data.channels_last,
        )  # fmt: skip
        serve.predicted = [positions]
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            for raw in serve.predict_dataloader()[0]:
                images = serve.on_after_batch_transfer(raw, 0).images
                yield trainer.precision_plugin.convert_input(
                    images.to(trainer.strategy.root_device)
                )


class _Placed:
    """A model on a device and in eval mode for the length of a block, then as it was."""

    def __init__(self, model: TransferModel, device: torch.device) -> None:
        self.model, self.device = model, device

    def __enter__(self) -> None:
        self.home = next(self.model.parameters()).device
        self.modes = {module: module.training for module in self.model.modules()}
        self.model.to(self.device).eval()

    def __exit__(self, *_: object) -> None:
        self.model.to(self.home)
        for module, mode in self.modes.items():
            module.training = mode


def _completed(body: nn.Module, whole: nn.Module) -> nn.Module:
    """Return a run's backbone with the parts that a head on the unpooled map left out of it.

    No step of the run touched them, so they are what they were in the source.
    """
    lost: list[str] = []
    for path, module in whole.named_modules():
        under = any(path.startswith(f"{known}.") for known in lost)
        if path and not under and not isinstance(module, nn.Identity):
            lost += [path] * isinstance(body.get_submodule(path), nn.Identity)
    if not lost:
        return body
    body = copy.deepcopy(body)
    for path in lost:
        body.set_submodule(path, copy.deepcopy(whole.get_submodule(path)))
    return body


def _probe(known: Floats, labels: Positions, features: Floats, truth: Positions) -> float:
    """Return the accuracy on ``features`` of a ridge classifier fitted to ``known``."""
    probe: Any = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=STRENGTHS))
    with threadpool_limits(1):  # as for the baselines: other runs have the other cores
        probe.fit(known, labels)
        return accuracy(probe.predict(features), truth)


def _drift(group: str, before: Floats, after: Floats) -> Record:
    return {
        "group": group,
        "cka": _similarity(linear_cka, before, after),
        "unbiased_cka": _similarity(unbiased_linear_cka, before, after),
        "n": before.shape[0],
        "dims": before.shape[1],
    }


def _similarity(of: Callable[[Floats, Floats], float], x: Floats, y: Floats) -> float | None:
    """Return a similarity, or None where it has no value: features that are the same everywhere."""
    try:
        value = float(of(x, y))
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _array(values: Tensor) -> Floats:
    return np.asarray(values.double().cpu().numpy())
