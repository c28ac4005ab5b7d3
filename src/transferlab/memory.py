"""How much memory a run is going to take on a device, before it starts."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from transferlab.datamodule import EVALUATION_BATCH
from transferlab.fitting import assemble
from transferlab.frozen_part import Cut, NoCutError
from transferlab.machine import ranks
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
        features: what is kept of a frozen backbone's images.
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
    return Memory(
        sum(map(_bytes, weights)), (1 + moments) * size, max(kept, passing), _features(plan, module)
    )


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


def _features(plan: Plan, module: Any) -> int:
    """Return the bytes of a frozen backbone's features, over all images that a run looks at."""
    model, splits = module.model, plan.data.splits
    if module.reuse is None or any(p.requires_grad for p in model.backbone.parameters()):
        return 0
    given = plan.data.preprocessing
    try:
        cut = Cut(model.eval())
        with torch.no_grad():
            values = cut.before(torch.zeros(1, len(given.mean), given.size, given.size))
    except NoCutError:
        return 0
    count = len(plan.train) * int(plan.cfg.views or 1) + len(splits.validation) + len(splits.test)
    size = sum(map(_bytes, values)) * count
    return int(min(size, float(plan.cfg.trainer.reuse_gb) * 2**30))


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()


def _size(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{max(size / 2**20, 0.1):.1f} MiB"
