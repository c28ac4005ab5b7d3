"""The guard against two replicas that are made up; real ones are in tests/e2e/test_ranks.py."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from transferlab.callbacks import replica_guard
from transferlab.callbacks.replica_guard import ReplicaGuard, check_replicas, checksum
from transferlab.errors import RunError


def model(change: Callable[[nn.Module], None] = lambda _: None) -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        change(made)
    return made


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module], None]:
    """Let the other rank hold a model of its own; it answers what this rank asks."""

    def hold(other: nn.Module) -> None:
        tensors = dict(replica_guard._tensors(other))
        answers = iter(["checksums", "tensor"])

        def both(value: Any) -> list[Any]:
            if next(answers) == "checksums":
                own = {name: checksum(tensor) for name, tensor in tensors.items()}
                both.first = next((n for n in value if value[n] != own.get(n)), None)
                return [value, own]
            return [value, tensors.get(both.first)]

        monkeypatch.setattr(replica_guard, "from_all", both)

    return hold


def test_equal_replicas_pass(beside: Callable[[nn.Module], None]) -> None:
    beside(model())
    check_replicas(model(), 3)


def test_one_process_passes() -> None:
    check_replicas(model(), 3)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m[0].weight[1, 1].add_(0.25), "0.weight by 0.25 between ranks, and 0 more of 7"),
        (lambda m: m[1].running_var.mul_(3), "1.running_var by 2 between ranks"),
        (lambda m: m[1].num_batches_tracked.add_(1), "1.num_batches_tracked by 1 between"),
        (lambda m: m[1].bias.fill_(-0.0), "1.bias by 0 between"),
        (lambda m: m.double(), "0.weight by 0 between ranks, and 5 more of 7"),
    ],
)
def test_the_first_tensor_that_differs_is_named(
    change: Callable[[nn.Module], None], told: str, beside: Callable[[nn.Module], None]
) -> None:
    beside(model(change))
    with pytest.raises(RunError, match=f"replicas differ after optimiser step 7: {told}"):
        check_replicas(model(), 7)


def test_a_tensor_that_only_one_rank_has_is_named(beside: Callable[[nn.Module], None]) -> None:
    beside(nn.Sequential(model()[0]))
    with pytest.raises(RunError, match=r"1\.weight by its being there"):
        check_replicas(model(), 7)


def test_checksums_look_at_bits() -> None:
    nan = torch.tensor([float("nan")])
    assert checksum(nan) == checksum(nan.clone())
    assert checksum(torch.zeros(2)) != checksum(-torch.zeros(2))
    assert checksum(torch.zeros(2, 1)) != checksum(torch.zeros(1, 2))
    assert checksum(torch.ones(1, dtype=torch.bfloat16)) != checksum(torch.ones(1))
    turned = torch.arange(6.0).reshape(2, 3).t()
    assert checksum(turned) == checksum(turned.contiguous())
    checksum(torch.tensor(3))


def test_it_looks_when_a_step_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(replica_guard, "check_replicas", lambda _, step: seen.append(step))
    guard, trainer = ReplicaGuard(every=2), SimpleNamespace(global_step=3)
    guard.on_train_start(trainer, None)
    for step in (3, 4, 4, 5, 5, 6, 6):  # two micro-batches a step
        trainer.global_step = step
        guard.on_train_batch_end(trainer, None, None, None, 0)
    assert seen == [4, 6]
    guard.on_train_end(trainer, None)
    assert seen == [4, 6, 6]
