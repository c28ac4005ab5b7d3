"""What a fit costs: time, memory, multiply-adds."""

import time
from pathlib import Path
from typing import Any

import psutil
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.flop_counter import FlopCounterMode


class Cost(Callback):
    """Measure a fit; multiply-adds are counted on one step each time the trained part changes."""

    def __init__(self) -> None:
        self.fit_seconds = 0.0
        self.peak_memory_bytes = 0
        self.trainable_parameters = 0
        self.training_multiply_adds = 0
        self._trained: tuple[bool, ...] = ()
        self._step_multiply_adds = 0
        self._counter: FlopCounterMode | None = None
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock and forget earlier peaks of memory."""
        self._started = time.perf_counter()
        _reset_peak(pl_module.device)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the coming step if other parameters train than before."""
        trained = tuple(p.requires_grad for p in pl_module.model.parameters())
        if trained != self._trained:
            self._trained = trained
            count = sum(p.numel() for p in pl_module.model.parameters() if p.requires_grad)
            self.trainable_parameters = max(self.trainable_parameters, count)
            self._counter = FlopCounterMode(display=False)
            self._counter.__enter__()  # type: ignore[no-untyped-call]

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        """Stop counting once the gradients are there."""
        self._stop_counting()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the step."""
        self.training_multiply_adds += self._step_multiply_adds

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._finish(pl_module.device)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop the clock of a fit that failed."""
        self._stop_counting()
        self._finish(pl_module.device)

    def _stop_counting(self) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._step_multiply_adds = self._counter.get_total_flops() // 2
            self._counter = None

    def _finish(self, device: torch.device) -> None:
        self.fit_seconds = time.perf_counter() - self._started
        self.peak_memory_bytes = _peak(device)


def multiply_adds_per_image(model: torch.nn.Module, image: torch.Tensor) -> int:
    """Count the multiply-adds of one (1, channels, H, W) image's way to its logits."""
    training = model.training
    model.eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(image)
    model.train(training)
    return int(counter.get_total_flops() // 2)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text(
            "5"
        )  # Linux: forget this process's high-water mark
    except OSError:
        return


def _peak(device: torch.device) -> int:
    """Return the peak since the reset: of the device's memory, or of this process's."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return int(psutil.Process().memory_info().rss)
