from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from transferlab.callbacks import average_buffers
from transferlab.callbacks.average_buffers import AverageBuffers, running_statistics


def test_only_statistics_that_a_rank_has_changed_are_averaged() -> None:
    model = nn.Sequential(
        nn.BatchNorm2d(2), nn.LayerNorm(2), nn.BatchNorm2d(3), nn.SyncBatchNorm(2),
        nn.BatchNorm2d(4, track_running_stats=False),
    )  # fmt: skip
    model.register_buffer("constant", torch.ones(5))
    model[2].eval()  # frozen: its bits must stand
    found = running_statistics(model)
    assert [id(b) for b in found] == [id(model[0].running_mean), id(model[0].running_var)]


def test_it_averages_once_per_optimiser_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[Tensor]] = []
    monkeypatch.setattr(average_buffers, "average", calls.append)
    callback, trainer = AverageBuffers(), SimpleNamespace(global_step=5)
    model = nn.BatchNorm1d(2)
    callback.on_train_start(trainer, model)
    for step in (5, 6, 6, 7):
        trainer.global_step = step
        callback.on_train_batch_end(trainer, model, None, None, 0)
    assert [len(tensors) for tensors in calls] == [2, 2]
