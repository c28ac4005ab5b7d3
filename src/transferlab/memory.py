"""How much memory a run is going to take on a device, before it starts."""

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from transferlab.callbacks.base import StrategyCallback
from transferlab.callbacks.phases import Phases
from transferlab.datamodule import EVALUATION_BATCH
from transferlab.fitting import assemble
from transferlab.forward_graph import Followed, NoCutError
from transferlab.frozen_part import Cut, Moving
from transferlab.machine import ranks
from transferlab.model import TransferModel
from transferlab.module import TransferModule
from transferlab.phase_table import phase_rows
from transferlab.planning import Plan
from transferlab.refitting import needs_training

TRIED = 4
"""Images that are sent through the model; activations grow with their number."""
MOMENTS = {"SGD": 1}
"""Numbers that an optimizer keeps beside each weight, where they are not the 2 of Adam's kin."""
WORDS = {
    "weights": "weights",
    "training": "gradients and the optimizer",
    "activations": "activations",
    "features": "what the frozen part computes",
}


@dataclass(frozen=True)
class Memory:
    """Bytes on one device; PyTorch's own come on top, and so do images that lie on a GPU.

    Attributes:
        weights: parameters and buffers.
        training: gradients and the optimizer's numbers, of all that ever trains.
        activations: what the backward pass keeps of a batch, or an evaluation of a larger one.
        features: what is kept of the images that went through frozen parts, over all phases.
    """

    weights: int
    training: int
    activations: int
    features: int

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return sum(asdict(self).values())

    def __str__(self) -> str:
        """Name the sum and its parts."""
        parts = [f"{_size(size)} {WORDS[name]}" for name, size in asdict(self).items() if size]
        return f"about {_size(self.total)} of memory beside PyTorch's own ({', '.join(parts)})"


def expected_memory(plan: Plan) -> Memory:
    """Return what a run takes, from one pass of a few images of noise on the CPU.

    Args:
        plan: of the run.
    """
    cfg = plan.cfg
    state = torch.get_rng_state()
    module, data, callbacks = assemble(plan, None)
    model = module.model
    trained: set[str] = set()
    if cfg.budget.steps and needs_training(model, all(c.trains_backbone() for c in callbacks)):
        rows = phase_rows(cfg, model, callbacks, len(plan.train) / int(cfg.batch_size))
        trained = {name for row in rows for name in row.names}
    features = _features(plan, module, callbacks)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    given = data.preprocessing
    images = torch.randn(TRIED, len(given.mean), given.size, given.size)
    if cfg.trainer.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    step = max(int(cfg.batch_size) // (ranks(cfg.trainer) * int(cfg.trainer.accumulate)), 1)
    mixed = str(cfg.trainer.precision).startswith("bf16")
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        kept = _kept(model, images) * step // TRIED if trained else 0
        passing = _passing(model, images) * max(step, EVALUATION_BATCH) // TRIED
    torch.set_rng_state(state)
    weights = [*model.parameters(), *model.buffers()]
    moments = MOMENTS.get(str(cfg.optimizer["_target_"]).rpartition(".")[2], 2)
    size = sum(_bytes(p) for name, p in model.named_parameters() if name in trained)
    return Memory(sum(map(_bytes, weights)), (1 + moments) * size, max(kept, passing), features)


def _kept(model: nn.Module, images: Tensor) -> int:
    """Return the bytes that a forward pass keeps for the backward pass."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    model.train()
    with saved_tensors_hooks(keep, lambda value: value):
        logits = model(images)  # held: what it keeps must not make room for something else
        total = sum(kept.values())
    del logits
    return total


@torch.no_grad()
def _passing(model: nn.Module, images: Tensor) -> int:
    """Return the most bytes that go into and come out of one layer in evaluation."""
    most = [0]

    def watch(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        tensors = [value for value in (*inputs, output) if isinstance(value, Tensor)]
        most[0] = max(most[0], sum(map(_bytes, tensors)))

    layers = [module for module in model.modules() if not any(module.children())]
    handles = [layer.register_forward_hook(watch) for layer in layers]
    try:
        model.eval()(images)
    finally:
        for handle in handles:
            handle.remove()
    return most[0]


def _features(plan: Plan, module: TransferModule, callbacks: list[StrategyCallback]) -> int:
    """Return the bytes of what leaves frozen parts, for all images and phases: held at once."""
    if module.reuse is None:
        return 0
    cfg, splits, model = plan.cfg, plan.data.splits, module.model.eval()
    followed, given = Followed(model), plan.data.preprocessing
    images = torch.zeros(1, len(given.mean), given.size, given.size)
    seen = len(plan.train) * int(cfg.views or 1) + len(splits.validation)
    total = 0
    for moving, steps in _phases(plan, model, callbacks):
        with suppress(NoCutError), torch.no_grad():
            if steps:
                module.reuse.check(steps)
            values = Cut(followed, moving).before(images)
            ever = moving.touches(model.backbone) or steps < cfg.budget.steps
            total += sum(map(_bytes, values)) * (seen if ever else seen + len(splits.test))
    return int(min(total, float(cfg.trainer.reuse_gb) * 2**30))


def _phases(
    plan: Plan, model: TransferModel, callbacks: list[StrategyCallback]
) -> list[tuple[Moving, int]]:
    """Return what moves in each phase, and its steps at the most; a head may need none."""
    steps = int(plan.cfg.budget.steps)
    if not steps or not needs_training(model, all(c.trains_backbone() for c in callbacks)):
        model.backbone.requires_grad_(False)
        return [(Moving.now(model), 0)]
    (schedule,) = [c for c in callbacks if isinstance(c, Phases)]
    per_epoch = len(plan.train) / int(plan.cfg.batch_size)
    phases, timeline = schedule.plan(model, steps, per_epoch)
    return [
        (Moving.then(model, state), timeline.extent(index))
        for index, state in enumerate(phases.states)
    ]


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()


def _size(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{max(size / 2**20, 0.1):.1f} MiB"
