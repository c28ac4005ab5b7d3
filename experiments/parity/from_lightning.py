"""Lightning's BackboneFinetuning: a frozen backbone, then rates that double up to the head's."""

import tempfile
from pathlib import Path

import lightning.pytorch as pl
import module
import tiny
import traces
from lightning.pytorch.callbacks import BackboneFinetuning

STEPS = 3  # an epoch
RATIO, FACTOR, RATE = 0.1, 2.0, 1e-3
RECIPES = (  # model, unfreeze at epoch, align with the head's rate, epochs
    ("test_vit", 2, True, 8),
    ("test_vit", 10, True, 16),
    ("test_vit", 2, False, 8),
    ("test_resnet", 2, True, 8),
)


def record(folder: Path) -> list[Path]:
    written = []
    for name, epoch, align, epochs in RECIPES:
        pl.seed_everything(0, verbose=False)
        traced = module.Traced(tiny.backbone_and_head(name), RATE, head_only=True)
        callback = BackboneFinetuning(
            unfreeze_backbone_at_epoch=epoch,
            lambda_func=lambda _epoch: FACTOR,
            backbone_initial_ratio_lr=RATIO,
            should_align=align,
        )
        with tempfile.TemporaryDirectory() as root:
            pl.Trainer(
                max_epochs=epochs,
                accelerator="cpu",
                callbacks=[callback],
                default_root_dir=root,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            ).fit(traced, tiny.images(STEPS))
        header = {
            "peer": "lightning",
            "model": f"timm {name}, num_classes=0, as backbone; nn.Linear as head",
            "steps_per_epoch": STEPS,
            "hyper_parameters": {
                "unfreeze_backbone_at_epoch": epoch,
                "backbone_initial_ratio_lr": RATIO,
                "lambda_func": FACTOR,
                "should_align": align,
                "train_bn": True,
                "max_epochs": epochs,
                "lr": RATE,
                "optimizer": "AdamW over the head's parameters",
            },
        }
        ending = "" if align else "_unaligned"
        recipe = f"lightning_backbone_finetuning_{name.removeprefix('test_')}_{epoch}{ending}"
        written.append(traces.write(folder, recipe, header, traced.tracer.groups()))
    return written
