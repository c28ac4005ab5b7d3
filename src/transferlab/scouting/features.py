"""Features of images in one pass of a model that does not train."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor

from transferlab.datamodule import EVALUATION_BATCH
from transferlab.model import TransferModel
from transferlab.split_data import Data, Positions


def device_for(cfg: DictConfig) -> torch.device:
    """Return the device that ``trainer.accelerator`` asks for; one is enough for one pass."""
    wanted = str(cfg.trainer.accelerator)
    if wanted in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if wanted in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def extract(
    model: TransferModel, data: Data, positions: Positions, device: torch.device
) -> NDArray[np.float64]:
    """Return the (n, F) pooled features of images, in the order of their positions.

    The model is left in eval mode, on the CPU.
    """
    model.to(device).eval()
    blocks = []
    with torch.inference_mode():
        for images in _batches(data, positions, device):
            blocks.append(model.features(images).float().cpu().numpy())
    model.to("cpu")
    return np.concatenate(blocks).astype(np.float64)


def calibrate_norms(
    model: TransferModel, data: Data, positions: Positions, device: torch.device
) -> None:
    """Give a random network running statistics of the images, as a frozen control gets them."""
    model.to(device).calibrate_norms(_batches(data, positions, device))


def _batches(data: Data, positions: Positions, device: torch.device) -> Iterator[Tensor]:
    """Serve normalised input, neither augmented nor shuffled."""
    for start in range(0, len(positions), EVALUATION_BATCH):
        raw = torch.from_numpy(data.store.images(positions[start : start + EVALUATION_BATCH]))
        yield data.preprocessing.from_uint8(raw.to(device))
