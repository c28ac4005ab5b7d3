"""Labels for new images from a run, with the run's own preprocessing."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import nn

from transferlab.analysis.formats import csv_row
from transferlab.assembling import build_model
from transferlab.backbones.layout import lay_out
from transferlab.backbones.timm import Preprocessing
from transferlab.backbones.weights import load_weights
from transferlab.building import build
from transferlab.datasets.cache import ImageSpec, resize
from transferlab.datasets.opening import open_image
from transferlab.datasets.policy import ImagePolicy, to_uint8
from transferlab.errors import UserError
from transferlab.model import TransferModel
from transferlab.records import read_json, replacing
from transferlab.targets import require_allowed
from transferlab.trainers import quiet

ENDINGS = frozenset(Image.registered_extensions())
BATCH = 64


def predict(
    run: Path, images: Sequence[Path], output: Path, packages: Sequence[str] = ()
) -> pd.DataFrame:
    """Label images with a run's model, in the run's precision, and write them as CSV.

    Args:
        run: directory of a run that kept its weights; anybody may have made it.
        images: files, or folders that are searched for images.
        output: of the CSV: ``path, prediction, probability`` and one column per class.
        packages: whose code the run may name besides those that every run may.

    Raises:
        UserError: no finished run, no weights, no images, or one that can't be read.
    """
    record, cfg = _load_run(run)
    _require_allowed(run, cfg, packages)
    with quiet():
        kind = "cuda" if torch.cuda.is_available() else "cpu"  # mps has no double precision
        fabric = Fabric(accelerator=kind, devices=1, precision=cfg.trainer.precision)
    model = fabric.setup_module(_load_model(run, record, cfg))
    preprocessing = Preprocessing(**_tuples(record["preprocessing"]))
    files = list(_files(images))
    if not files:
        raise UserError(f"no images at {', '.join(map(str, images))}. Give image files or folders.")
    classes = record["classes"]
    blocks = [
        _label(model, preprocessing, cfg, files[start : start + BATCH], fabric.device)
        for start in range(0, len(files), BATCH)
    ]
    probabilities = np.concatenate(blocks)
    best = probabilities.argmax(axis=1)
    frame = pd.DataFrame(
        {
            **_texts("path", map(str, files)),
            **_texts("prediction", (classes[k] for k in best)),
            "probability": probabilities.max(axis=1),
        }
    )
    for index, name in enumerate(classes):
        frame[f"p({name})"] = probabilities[:, index]
    try:
        with replacing(output) as temporary:
            frame.to_csv(temporary, index=False, float_format="%.6f")
    except OSError as error:
        raise UserError(f"{output} can't be written ({error.strerror}). Set --output.") from error
    return frame


def _texts(column: str, values: Iterable[str]) -> dict[str, list[str]]:
    """Return a column in which no name of a file or a class is a formula to a spreadsheet."""
    return {column: [csv_row({column: value})[column] for value in values]}


def _load_run(run: Path) -> tuple[dict[str, Any], DictConfig]:
    if not (run / "run.json").is_file() or not (run / "config.yaml").is_file():
        raise UserError(
            f"{run} is not the directory of a finished run (no run.json and config.yaml). "
            "Give one below runs/; its path is printed at the end of transferlab run."
        )
    try:
        record = read_json(run / "run.json")
    except ValueError as error:
        raise UserError(f"{error} Run it again.") from error
    cfg = OmegaConf.load(run / "config.yaml")
    if record.get("status") == "failed" or not isinstance(cfg, DictConfig):
        raise UserError(f"{run} failed ({record.get('reason')}): it has no model. Run it again.")
    return record, cfg


def _require_allowed(run: Path, cfg: DictConfig, packages: Sequence[str]) -> None:
    """Let a run name no code that the person at the keyboard did not allow; its file can't."""
    try:
        require_allowed(cfg, packages)
    except UserError as error:
        told = str(error).replace("add allowed_packages=[", "add --allow ").replace("].", ".")
        raise UserError(f"{run}/config.yaml: {told}") from error


def _load_model(run: Path, record: dict[str, Any], cfg: DictConfig) -> TransferModel:
    state = load_weights(run)
    model = build_model(cfg, len(record["classes"]), record["preprocessing"]["size"])
    for node in cfg.strategy.callbacks.values():
        build(node).adapt(model)  # adapters have weights of their own
    wanted = model.state_dict()
    grows = {f"head.{name}" for name in getattr(model.head, "grows", ())}  # with the data
    wrong = [
        k
        for k in wanted
        if k not in state or (state[k].shape != wanted[k].shape and k not in grows)
    ]
    if wrong or len(state) != len(wanted):
        first = wrong[0] if wrong else sorted(set(state) - set(wanted))[0]
        raise UserError(
            f"the weights in {run} do not fit its record of {len(record['classes'])} classes "
            f"(first: {first}). They were changed or belong to another run; run it again."
        )
    model.load_state_dict(state)
    return lay_out(model, channels_last=cfg.trainer.channels_last).eval()


def _label(
    model: nn.Module,
    preprocessing: Preprocessing,
    cfg: DictConfig,
    files: Sequence[Path],
    device: torch.device,
) -> NDArray[np.float64]:
    spec = ImageSpec(preprocessing.size, preprocessing.interpolation, preprocessing.crop_pct)
    policy = ImagePolicy(**{**cfg.target.images, "broken": "refuse"})
    pixels = []
    for path in files:
        image = resize(to_uint8(open_image(path), policy, str(path)), spec)
        pixels.append(np.broadcast_to(image, (len(preprocessing.mean), *image.shape[1:])))
    batch = preprocessing.from_uint8(torch.from_numpy(np.stack(pixels)).to(device))
    with torch.inference_mode():
        logits = model(batch)
    return np.asarray(logits.double().softmax(dim=1).cpu().numpy())


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(
                p for p in path.rglob("*")
                if p.suffix.lower() in ENDINGS and not p.name.startswith(".")
            )  # fmt: skip
        elif path.is_file():
            yield path
        else:
            raise UserError(f"no image at {path}.")


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
