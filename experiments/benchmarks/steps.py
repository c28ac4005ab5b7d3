"""What our loop costs beside the model: fine-tuning a tiny one, against the same batches by hand.

Both arms build the same model from the same seed and take the same optimiser steps on the same
batches; their last losses must agree, so neither does less work. The model is so small that a
step of Lightning, our callbacks and lines shows.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from in_turn import Outcome, in_turn, show, write
from omegaconf import OmegaConf, open_dict

from transferlab.assembling import build_model
from transferlab.building import build
from transferlab.config import config_folder, register
from transferlab.datasets.batches import Shuffled
from transferlab.fitting import fit
from transferlab.optim import parameter_groups
from transferlab.planning import Plan, plan_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    plan = planned(args)
    setting = {"backbone": args.backbone, "size": args.image_size, "steps": args.steps,
               "batch_size": args.batch_size}  # fmt: skip
    arms = {"ours": lambda: ours(plan), "by hand": lambda: bare(plan)}
    rows = in_turn(arms, args.rounds, **setting)
    losses = [row["loss"] for row in rows]
    torch.testing.assert_close(min(losses), max(losses), rtol=1e-4, atol=1e-5)
    show(rows, "ours")
    write(rows, "steps")


def planned(args: argparse.Namespace) -> Plan:
    """A run on the embedded digits, validated once, on a handful of images."""
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        cfg = compose("run", overrides=[
            "strategy=fine_tune", "backbone=timm", f"backbone.name={args.backbone}",
            f"backbone.image_size={args.image_size}", f"batch_size={args.batch_size}",
            f"budget.steps={args.steps}", "trainer=cpu", "trainer.validations=1",
            "target.max_validation=20", "trainer.precision=32-true",
        ])  # fmt: skip
    with open_dict(cfg):
        cfg.study = None
    OmegaConf.resolve(cfg)
    return plan_run(cfg)


def ours(plan: Plan) -> Outcome:
    """From the first step to the last, the one validation after it included."""
    with tempfile.TemporaryDirectory() as folder:
        done = fit(plan, None, Path(folder), [])
    return Outcome(done.cost.fit_seconds, None, {"loss": float(done.module.last_loss)})


def bare(plan: Plan) -> Outcome:
    """The loop that one would write by hand, and nothing besides."""
    cfg, store, preprocessing = plan.cfg, plan.data.store, plan.data.preprocessing
    model = build_model(cfg, len(store.classes), preprocessing.size)
    model = model.to(memory_format=torch.channels_last).train()
    groups = parameter_groups(model.named_parameters(), cfg.optimizer.lr, model.undecayed())
    optimizer = build(cfg.optimizer)(groups)
    scheduler = build(cfg.scheduler)(optimizer)
    batches = Shuffled(store, plan.train, cfg.batch_size, cfg.budget.steps, cfg.seed)
    labels = torch.as_tensor(store.labels)
    started = time.perf_counter()
    for step in range(cfg.budget.steps):
        batch = batches[step]
        images = preprocessing.normalise(batch["images"].float().div_(255))
        logits = model(images.contiguous(memory_format=torch.channels_last))
        loss = torch.nn.functional.cross_entropy(logits, labels[batch["positions"]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return Outcome(time.perf_counter() - started, None, {"loss": float(loss.detach())})


if __name__ == "__main__":
    main()
