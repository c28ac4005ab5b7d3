"""Fine-tuning on one GPU in bf16 at 224 px: ours against a loop by hand on data in GPU memory.

``python experiments/benchmarks/gpu.py``; the embedded digits, enlarged, stand for images.
"""

import argparse
from functools import partial

import fits
import peers
import torch
from in_turn import Row, in_turn, show, write

from transferlab.assembling import build_model

BACKBONES = ("resnet50", "vit_base_patch16_224")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--backbones", nargs="*", default=BACKBONES)
    given = parser.parse_args()
    rows: list[Row] = []
    for backbone in given.backbones:
        args = argparse.Namespace(
            strategy="fine_tune", backbone=backbone, size=224, images=10_000, data=None,
            epochs=given.epochs, batch_size=given.batch_size,
        )  # fmt: skip
        line = ("trainer=gpu", "trainer.precision=bf16-mixed", "source=none", "optimizer.lr=1e-4",
                "strategy.init=source")  # fmt: skip
        plan = fits.planned(args, *line)
        start = build_model(plan.cfg, len(plan.data.store.classes), 224)
        task = fits.task_of(plan, args)
        convolutional = not backbone.startswith("vit")
        by_hand = partial(
            peers.bare, task=task, channels_last=convolutional, bf16=True, device="cuda"
        )
        arms = {
            "ours": fits.ours(args, None, task, *line),
            "by hand": fits.peer(start, task, by_hand),
        }
        own = in_turn(arms, given.rounds, backbone=backbone, gpu=torch.cuda.get_device_name())
        show(own, "ours")
        rows += own
    write(rows, "gpu")


if __name__ == "__main__":
    main()
