"""The runs of a study as stock Lightning makes them: ``python stock.py CONFIG...``.

Each CONFIG is the ``config.yaml`` of a run of ours. Model, images, steps, optimizer, schedule and
validations are the same; data are read by a plain DataLoader, scores are torchmetrics', and no
predictions, early outputs, costs or records are kept but the final accuracies.
"""

import json
import logging
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer, seed_everything
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from transferlab.assembling import build_model
from transferlab.backbones.weights import load_backbone
from transferlab.building import build
from transferlab.optim import warmup_cosine
from transferlab.planning import Plan, plan_run
from transferlab.run import starting_weights


class Fit(LightningModule):
    """A model, and whether its backbone stands still."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        cfg, classes = plan.cfg, len(plan.data.store.classes)
        self.model = build_model(cfg, classes, plan.data.preprocessing.size)
        weights = starting_weights(cfg)
        if weights is not None:
            load_backbone(self.model.backbone, weights, "the source")
        self.frozen = cfg.strategy.name == "feature_extraction"
        if self.frozen:
            self.model.backbone.requires_grad_(False)
        self.accuracy = MulticlassAccuracy(classes, average="micro")
        self.cfg = cfg

    def on_train_epoch_start(self) -> None:
        """Keep the statistics of a frozen backbone still."""
        if self.frozen:
            self.model.backbone.eval()

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Return the loss."""
        loss = cross_entropy(self.model(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        """Score a batch."""
        self.accuracy(self.model(batch[0]), batch[1])
        self.log("accuracy", self.accuracy)

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        """Return the study's own."""
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = build(self.cfg.optimizer)(trained)
        schedule = warmup_cosine(optimizer, int(self.cfg.budget.steps))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def images(plan: Plan, positions: Any) -> TensorDataset:
    """Return decoded, normalised images and their labels."""
    raw = torch.from_numpy(plan.data.store.images(positions))
    labels = torch.as_tensor(plan.data.store.labels)[torch.from_numpy(positions)]
    return TensorDataset(plan.data.preprocessing.normalise(raw.float().div_(255)), labels)


def run(path: Path) -> dict[str, float]:
    """Make one run."""
    cfg = OmegaConf.load(path)
    plan = plan_run(cfg)  # type: ignore[arg-type]
    seed_everything(int(plan.cfg.seed), verbose=False)
    steps, size = int(plan.cfg.budget.steps), int(plan.cfg.batch_size)
    split = plan.data.splits
    train = DataLoader(images(plan, plan.train), size, shuffle=True)
    validation = DataLoader(images(plan, split.validation), 128)
    module = Fit(plan)
    epochs = -(-steps // len(train))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_steps=steps, accelerator="cpu", default_root_dir=folder,
            check_val_every_n_epoch=max(epochs // int(plan.cfg.trainer.validations), 1),
            enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=10,
        )  # fmt: skip
        trainer.fit(module, train, validation)
        if plan.cfg.purpose == "tune":
            return dict(trainer.callback_metrics)
        return dict(
            trainer.test(module, DataLoader(images(plan, split.test), 128), verbose=False)[0]
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    found = {path: run(Path(path)) for path in sys.argv[1:]}
    print(json.dumps({path: float(s["accuracy"]) for path, s in found.items()}))
