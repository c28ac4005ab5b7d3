"""What a fit costs: time, memory, multiply-adds, energy."""

import time
from pathlib import Path
from typing import Any

import psutil
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.flop_counter import FlopCounterMode

from transferlab.energy import Meter, open_meter


class Cost(Callback):
    """Measure a fit, over all processes that took part in it one after the other.

    Multiply-adds are this rank's, counted on one micro-batch each time the trained part changes.
    What a killed process did after its last checkpoint is not in it.

    Args:
        energy: ``trainer.energy``: whether, and by what, this process's energy is counted.

    Attributes:
        fit_seconds: of all processes; those before this one took ``earlier_seconds``.
        joules: that a meter counted over all of them; None where one of them had none.
        meter: its name, and whether it measures; None without one.
    """

    def __init__(self, energy: str = "off") -> None:
        self.joules: float | None = None
        self.meter: tuple[str, bool] | None = None
        self._energy = energy
        self._meter: Meter | None = None
        self._first_joules = 0.0
        self._earlier_joules: float | None = 0.0
        self.fit_seconds = 0.0
        self.earlier_seconds = 0.0
        self.peak_memory_bytes = 0
        self.trainable_parameters = 0
        self.training_multiply_adds = 0
        self._parameters: list[torch.nn.Parameter] = []
        self._trained: tuple[bool, ...] = ()
        self._step_multiply_adds = 0
        self._counter: FlopCounterMode | None = None
        self._started: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock and forget earlier peaks of memory."""
        self._parameters = []
        self._started = time.perf_counter()
        _reset_peak(pl_module.device)
        self._watch(pl_module.device)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the coming step if other parameters train than before."""
        if not self._parameters:
            self._parameters = list(pl_module.model.parameters())
        trained = tuple(p.requires_grad for p in self._parameters)
        reuse, spent = getattr(pl_module, "reuse", None), 0
        if reuse is not None:  # a run that goes on within a phase has counted it already
            spent, reuse.multiply_adds = reuse.multiply_adds, 0
        if trained != self._trained:
            self._trained = trained
            count = sum(p.numel() for p in self._parameters if p.requires_grad)
            self.trainable_parameters = max(self.trainable_parameters, count)
            self.training_multiply_adds += spent
            self._counter = FlopCounterMode(display=False)
            self._counter.__enter__()  # type: ignore[no-untyped-call]

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop counting once the gradients are there."""
        self._stop_counting()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the micro-batch."""
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

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far, and what was counted last.

        A step under the counter may be computed in another way, to the last bit: a run that goes
        on must count on the same steps.
        """
        return {
            "seconds": self._seconds(),
            "joules": self._joules(),
            "peak_memory_bytes": self.peak_memory_bytes,
            "trainable_parameters": self.trainable_parameters,
            "training_multiply_adds": self.training_multiply_adds,
            "trained": list(self._trained),
            "step_multiply_adds": self._step_multiply_adds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""
        self.earlier_seconds = state_dict["seconds"]
        self._earlier_joules = state_dict.get("joules")
        self.peak_memory_bytes = state_dict["peak_memory_bytes"]
        self.trainable_parameters = state_dict["trainable_parameters"]
        self.training_multiply_adds = state_dict["training_multiply_adds"]
        self._trained = tuple(state_dict["trained"])
        self._step_multiply_adds = state_dict["step_multiply_adds"]

    def _seconds(self) -> float:
        now = time.perf_counter()
        return self.earlier_seconds + (0.0 if self._started is None else now - self._started)

    def _watch(self, device: torch.device) -> None:
        """Take the count of the meter, where there is one."""
        self._meter = open_meter(self._energy, device)
        if self._meter is not None:
            self.meter = (self._meter.name, self._meter.measured)
            self._first_joules = self._meter.joules()

    def _joules(self) -> float | None:
        if self._meter is None or self._earlier_joules is None:
            return None
        return self._earlier_joules + self._meter.joules() - self._first_joules

    def _stop_counting(self) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._step_multiply_adds = self._counter.get_total_flops() // 2
            self._counter = None

    def _finish(self, device: torch.device) -> None:
        self.fit_seconds = self._seconds()
        self.joules = self._joules()
        self.peak_memory_bytes = max(self.peak_memory_bytes, _peak(device))


def multiply_adds_per_image(model: torch.nn.Module, image: torch.Tensor) -> int:
    """Count the multiply-adds of one (1, channels, H, W) image's way to its logits."""
    training = model.training
    model.eval()
    counter = FlopCounterMode(display=False)
    # torch's counter hooks into gradients, and trips over views of parameters made without them
    with torch.enable_grad(), counter:
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
