"""Whole fits of ten epochs, in turn: ours, a loop by hand, stock Lightning and others.

``python experiments/benchmarks/fits.py STRATEGY`` with fine_tune, feature_extraction or
gradual_unfreezing. Images are the embedded digits, or those of a folder of classes (``--data``).
finetuning-scheduler and fastai take part where they are installed, and bf16 where the CPU computes
in it; the column ``auto`` says which precision a run of ours chooses by itself.
"""

import argparse
import copy
import importlib.util
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import peers
import torch
from hydra import compose, initialize_config_dir
from in_turn import Outcome, show, write
from omegaconf import OmegaConf, open_dict
from peers import Task
from slices import clock, in_slices
from torch import Tensor, nn

from transferlab import probes
from transferlab.assembling import build_model
from transferlab.auto_depth import fit
from transferlab.backbones.weights import StateDict, load_backbone
from transferlab.cache import cache_folder
from transferlab.config import config_folder, register
from transferlab.model import TransferModel
from transferlab.planning import Plan, plan_run
from transferlab.precision import cpu_has_bf16
from transferlab.run import starting_weights
from transferlab.trainers import quiet

PHASES = 5
STRATEGIES = ("fine_tune", "feature_extraction", "gradual_unfreezing")


def main() -> None:
    args = arguments()
    threads = args.threads or torch.get_num_threads()
    with multiprocessing.get_context("fork").Pool(1) as pool:  # its threads end with it
        auto = pool.apply(chosen_precision, (args,))
    torch.set_num_threads(1)
    plan = planned(args)
    weights = starting_weights(plan.cfg)
    start = build_model(plan.cfg, len(plan.data.store.classes), plan.data.preprocessing.size)
    if weights is not None:
        load_backbone(start.backbone, weights, "the source")
    task = task_of(plan, args)
    makers = {
        "fine_tune": fine_tuning, "feature_extraction": extraction, "gradual_unfreezing": gradual,
    }  # fmt: skip
    arms = makers[args.strategy](args, weights, start, task)
    setting = {
        "strategy": args.strategy, "backbone": args.backbone, "size": args.size,
        "images": len(task.images), "epochs": args.epochs, "batch_size": args.batch_size,
        "auto": auto,
    }  # fmt: skip
    rows = in_slices(arms, args.rounds, threads, **setting)
    show(rows, "ours")
    write(rows, f"fits-{args.strategy}-{args.backbone}", threads)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("strategy", choices=STRATEGIES)
    parser.add_argument("--backbone", default="resnet10t")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=840)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    parser.add_argument("--data", help="a folder of classes; the embedded digits without it")
    parser.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, default=cpu_has_bf16(),
        help="arms in bf16 too",
    )  # fmt: skip
    return parser.parse_args()


def planned(args: argparse.Namespace, *more: str) -> Plan:
    """Our run of a strategy, validated once at its end."""
    register()
    data = ["target=image_folder", f"target.root={args.data}"] if args.data else ["target=digits"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        cfg = compose("run", overrides=[
            *data, f"strategy={args.strategy}", "backbone=timm", f"backbone.name={args.backbone}",
            f"backbone.image_size={args.size}", f"batch_size={args.batch_size}",
            f"budget.epochs={args.epochs}", "scheduler=constant", "optimizer.lr=1e-3",
            "trainer=cpu", "trainer.validations=1", "target.max_validation=20",
            "target.test=0.3", "source=glyphs", "source.pretrain.budget.steps=100",
            "checkpoint.every_minutes=null", "trainer.energy=off",
            "trainer.precision=32-true", *more,
        ])  # fmt: skip
    with open_dict(cfg):
        cfg.study = None
        cfg.target.fraction = None
    OmegaConf.resolve(cfg)
    whole = plan_run(cfg)
    if len(whole.train) > args.images:
        with open_dict(cfg):
            cfg.target.fraction = args.images / len(whole.train)
        whole = plan_run(cfg)
    return whole


def chosen_precision(args: argparse.Namespace) -> str:
    """What our run chooses by timing itself."""
    return str(planned(args, "trainer.precision=auto").cfg.trainer.precision)


def task_of(plan: Plan, args: argparse.Namespace) -> Task:
    """The same images, decoded and normalised, as tensors for the peers."""
    store = plan.data.store

    def images(positions: object) -> Tensor:
        raw = torch.from_numpy(store.images(positions))
        return plan.data.preprocessing.normalise(raw.float().div_(255)).contiguous()

    labels = torch.as_tensor(store.labels)
    train, test = plan.train, plan.data.splits.test
    return Task(
        images(train), labels[torch.from_numpy(train)], images(test),
        labels[torch.from_numpy(test)], args.epochs, args.batch_size,
        float(plan.cfg.optimizer.lr), float(plan.cfg.optimizer.weight_decay),
    )  # fmt: skip


Arms = dict[str, Callable[[], Outcome]]


def ours(args: argparse.Namespace, weights: StateDict | None, task: Task, *more: str,
         cold: bool = True) -> Callable[[], Outcome]:  # fmt: skip
    """Our fit, all set-up included; cold ones find no features on the disk."""
    plan = planned(args, *more)

    def run() -> Outcome:
        if cold:
            shutil.rmtree(cache_folder() / "features", ignore_errors=True)
        with tempfile.TemporaryDirectory() as folder, quiet():
            began = clock()
            done = fit(plan, weights, Path(folder), [])
            seconds = clock() - began
        score = peers.accuracy(done.module.model, task)
        return Outcome(seconds, score)

    return run


GRID = [
    (f"optimizer.lr={rate:.3g}", f"optimizer.weight_decay={decay:g}")
    for rate in (10 ** (-4 + 0.3 * step) for step in range(10))
    for decay in (0, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
]
"""Eighty settings of one head."""


def grid(
    args: argparse.Namespace, weights: StateDict | None, *, cold: bool, count: int = 40
) -> Callable[[], Outcome]:
    """Our fit of many heads, set-up included."""
    plans = [planned(args, *settings) for settings in GRID[:count]]

    def run() -> Outcome:
        if cold:
            shutil.rmtree(cache_folder() / "features", ignore_errors=True)
        with tempfile.TemporaryDirectory() as folder, quiet():
            began = clock()
            places = [Path(folder) / str(number) for number in range(len(plans))]
            probes.fit(plans, weights, places, [[] for _ in plans])
            return Outcome(clock() - began)

    return run


def peer(
    start: TransferModel, task: Task, train: Callable[[nn.Module], float]
) -> Callable[[], Outcome]:
    """A peer's fit of a copy of the model."""

    def run() -> Outcome:
        own = copy.deepcopy(start)
        torch.manual_seed(0)
        seconds = train(own)
        return Outcome(seconds, peers.accuracy(own, task))

    return run


def fine_tuning(
    args: argparse.Namespace, weights: StateDict | None, start: TransferModel, task: Task
) -> Arms:
    arms: Arms = {
        "ours": ours(args, weights, task),
        "by hand": peer(start, task, lambda m: peers.bare(m, task)),
        "by hand, channels_last": peer(
            start, task, lambda m: peers.bare(m, task, channels_last=True)
        ),
        "Lightning": peer(start, task, lambda m: peers.lightning(m, task)),
        "Lightning, barebones, channels_last": peer(
            start, task, lambda m: peers.lightning(m, task, fastest=True)
        ),
    }
    if args.bf16:
        arms["ours, bf16"] = ours(args, weights, task, "trainer.precision=bf16-mixed")
        arms["by hand, channels_last, bf16"] = peer(
            start, task, lambda m: peers.bare(m, task, channels_last=True, bf16=True)
        )
        arms["Lightning, barebones, channels_last, bf16"] = peer(
            start, task, lambda m: peers.lightning(m, task, fastest=True, precision="bf16-mixed")
        )
    if importlib.util.find_spec("fastai"):
        arms["fastai"] = peer(
            start, task, lambda m: peers.fastai(m, task, body=m.backbone, head=m.head)
        )
    return arms


def extraction(
    args: argparse.Namespace, weights: StateDict | None, start: TransferModel, task: Task
) -> Arms:
    arms: Arms = {
        "ours": ours(args, weights, task),
        "ours, features on disk": ours(args, weights, task, cold=False),
        "ours, 40 heads": grid(args, weights, cold=True),
        "ours, 40 heads, features on disk": grid(args, weights, cold=False),
        "by hand, frozen": peer(start, task, lambda m: peers.bare(m, task, frozen=[m.backbone])),
        "Lightning, frozen": peer(
            start, task, lambda m: peers.lightning(m, task, frozen=[m.backbone])
        ),
        "Lightning, frozen, barebones, channels_last": peer(
            start, task, lambda m: peers.lightning(m, task, fastest=True, frozen=[m.backbone])
        ),
    }
    if importlib.util.find_spec("fastai"):
        arms["fastai, frozen"] = peer(
            start, task, lambda m: peers.fastai(m, task, body=m.backbone, head=m.head, frozen=True)
        )
    return arms


def gradual(
    args: argparse.Namespace, weights: StateDict | None, start: TransferModel, task: Task
) -> Arms:
    """Five phases of two epochs: the head, then one more stage from the top in each."""
    names = [[f"head.{n}" for n, _ in start.head.named_parameters()]]
    for stage in reversed(stages_of(start.backbone)[1:]):
        own = {id(p) for p in stage.parameters()}
        names.append([n for n, p in start.named_parameters() if id(p) in own])
    every = f"+strategy.callbacks.gradual_unfreezing.every={{epochs: {args.epochs // PHASES}}}"
    arms: Arms = {
        "ours": ours(args, weights, task, every),
        "by hand, activations computed once": peer(
            start, task,
            lambda m: peers.cached_stages(
                stages_of(m.backbone), m.head, task, phases=PHASES
            ),
        ),
    }  # fmt: skip
    if importlib.util.find_spec("finetuning_scheduler"):
        arms["finetuning-scheduler"] = peer(
            start, task, lambda m: peers.lightning(m, task, phases=names)
        )
    if args.bf16:
        arms["ours, bf16"] = ours(args, weights, task, every, "trainer.precision=bf16-mixed")
        arms["by hand, activations computed once, bf16"] = peer(
            start, task,
            lambda m: peers.cached_stages(
                stages_of(m.backbone), m.head, task, phases=PHASES, bf16=True
            ),
        )  # fmt: skip
    if args.bf16 and "finetuning-scheduler" in arms:
        arms["finetuning-scheduler, bf16"] = peer(
            start, task, lambda m: peers.lightning(m, task, phases=names, precision="bf16-mixed")
        )
    return arms


def stages_of(backbone: nn.Module) -> list[nn.Module]:
    """A ResNet's stem and its four stages, the last one with the pooling."""
    stem = nn.Sequential(backbone.conv1, backbone.bn1, backbone.act1, backbone.maxpool)
    last = nn.Sequential(backbone.layer4, backbone.global_pool)
    return [stem, backbone.layer1, backbone.layer2, backbone.layer3, last]


if __name__ == "__main__":
    main()
