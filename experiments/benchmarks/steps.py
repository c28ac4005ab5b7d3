"""Seconds a step: our run against a bare PyTorch loop over the same batches.

Both arms build the same model from the same seed and take the same optimiser steps on the same
batches; their last losses must agree, so neither does less work. The arms run in turn in one
process, so that a machine that slows down slows both.
"""

import argparse
import csv
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from transferlab.building import build
from transferlab.config import config_folder, register
from transferlab.datamodule import Shuffled
from transferlab.fitting import build_model, fit
from transferlab.optim import parameter_groups
from transferlab.planning import Plan, plan_run

RESULTS = Path(__file__).parent / "results"
STRATEGIES = ("fine_tune", "feature_extraction")
Arm = Callable[[Plan], tuple[float, float]]  # -> seconds of all steps, last loss


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    rows = []
    for strategy in STRATEGIES:
        plan = planned(strategy, args)
        for arm in (ours, bare):
            arm(plan)  # warm-up: caches, memory, kernels
        for number in range(args.rounds):
            losses = []
            for arm in (ours, bare) if number % 2 == 0 else (bare, ours):
                seconds, loss = arm(plan)
                losses.append(loss)
                rows.append((strategy, arm.__name__, number, 1000 * seconds / args.steps))
            torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)
    write(rows, args)
    show(rows, args)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def planned(strategy: str, args: argparse.Namespace) -> Plan:
    """A run on the embedded digits, validated once, on a handful of images."""
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        cfg = compose("run", overrides=[
            f"strategy={strategy}", "backbone=timm", f"backbone.name={args.backbone}",
            f"backbone.image_size={args.image_size}", f"batch_size={args.batch_size}",
            f"budget.steps={args.steps}", "trainer=cpu", "trainer.validations=1",
            "target.max_validation=20",
        ])  # fmt: skip
    with open_dict(cfg):
        cfg.study = None
    OmegaConf.resolve(cfg)
    return plan_run(cfg)


def ours(plan: Plan) -> tuple[float, float]:
    """From the first step to the last, the one validation after it included."""
    with tempfile.TemporaryDirectory() as folder:
        done = fit(plan, None, Path(folder), [])
    return done.cost.fit_seconds, float(done.module.last_loss)


def bare(plan: Plan) -> tuple[float, float]:
    """The loop that one would write by hand, and nothing besides."""
    cfg, store, preprocessing = plan.cfg, plan.data.store, plan.data.preprocessing
    frozen = cfg.strategy.name == "feature_extraction"
    model = build_model(cfg, len(store.classes), preprocessing.size)
    model = model.to(memory_format=torch.channels_last)
    if frozen:
        calibrate(model.backbone, plan)
        model.backbone.requires_grad_(False)
    model.train()
    if frozen:
        model.backbone.eval()
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
    return time.perf_counter() - started, float(loss.detach())


def calibrate(backbone: torch.nn.Module, plan: Plan) -> None:
    """Give the frozen random backbone the running statistics that our run gives it."""
    norms = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    backbone.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    size = max(plan.cfg.batch_size, 128)
    with torch.no_grad():
        for start in range(0, len(plan.train), size):
            raw = torch.from_numpy(plan.data.store.images(plan.train[start : start + size]))
            images = plan.data.preprocessing.normalise(raw.float().div_(255))
            backbone(images.contiguous(memory_format=torch.channels_last))


def write(rows: list[tuple[str, str, int, float]], args: argparse.Namespace) -> None:
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "steps.csv").open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(("strategy", "arm", "round", "ms_per_step", "steps", "batch_size",
                        "backbone", "image_size", "threads", "torch", "machine"))  # fmt: skip
        for strategy, arm, number, milliseconds in rows:
            table.writerow((strategy, arm, number, f"{milliseconds:.4f}", args.steps,
                            args.batch_size, args.backbone, args.image_size, args.threads,
                            torch.__version__, platform.machine()))  # fmt: skip


def show(rows: list[tuple[str, str, int, float]], args: argparse.Namespace) -> None:
    print(f"{args.backbone}, {args.image_size} px, {args.steps} steps of {args.batch_size}, "
          f"{args.rounds} rounds, threads: {args.threads}; medians")  # fmt: skip
    print(f"{'strategy':<20}{'ours, ms a step':>18}{'bare loop':>12}{'ratio':>8}  (range)")
    for strategy in STRATEGIES:
        times = {
            arm: [row[3] for row in rows if row[:2] == (strategy, arm)] for arm in ("ours", "bare")
        }
        ratios = [a / b for a, b in zip(times["ours"], times["bare"], strict=True)]
        ours_ms, bare_ms = (statistics.median(times[arm]) for arm in ("ours", "bare"))
        print(f"{strategy:<20}{ours_ms:>18.2f}{bare_ms:>12.2f}{ours_ms / bare_ms:>8.2f}  "
              f"({min(ratios):.2f} to {max(ratios):.2f})")  # fmt: skip
    print(RESULTS / "steps.csv")


if __name__ == "__main__":
    main()
