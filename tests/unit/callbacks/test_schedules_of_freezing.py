"""When layer groups thaw: read off the schedules that the callbacks make for a model."""

import pytest
import torch
from torch import nn

from transferlab.callbacks.freezing import FrozenBackbone, LinearProbing
from transferlab.callbacks.gradual_unfreezing import GradualUnfreezing, TensorUnfreezing
from transferlab.callbacks.phases import Phases, everything
from transferlab.errors import UserError
from transferlab.parts import Parts


class Stack(nn.Module):
    """A body of ``groups - 1`` layers and a head."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        with torch.device("meta"):
            self.backbone = nn.Sequential(*(nn.Linear(1, 1) for _ in range(groups - 1)))
            self.head = nn.Linear(1, 1)


def phases(callback: Phases, steps: int, groups: int, per_epoch: float = 10.0) -> list[int]:
    """The lowest layer group that trains at each step; all above it must, too."""
    model = Stack(groups)
    plan, timeline = callback.plan(model, steps, per_epoch)
    numbers = Parts(model).group_of
    found = []
    for step in range(steps):
        trained = plan.states[timeline.phase_at(step)].trained
        first = min(numbers[name] for name in trained)
        assert trained == {name for name, group in numbers.items() if group >= first}
        found.append(first)
    return found


def test_fine_tuning_trains_everything() -> None:
    assert set(phases(everything(), 10, 6)) == {0}
    assert everything().trains_backbone()


def test_feature_extraction_trains_the_head_alone() -> None:
    assert set(phases(FrozenBackbone(), 10, 6)) == {5}
    assert not FrozenBackbone().trains_backbone()


def test_linear_probing_ends_when_its_share_is_spent() -> None:
    assert phases(LinearProbing(0.3), 10, 6) == [5] * 3 + [0] * 7
    assert LinearProbing().trains_backbone()


def test_groups_thaw_at_equal_distances_from_the_top() -> None:
    assert phases(GradualUnfreezing(share=0.5), 20, 6) == (
        [5] * 2 + [4] * 2 + [3] * 2 + [2] * 2 + [1] * 2 + [0] * 10
    )


def test_groups_thaw_every_so_often() -> None:
    by_epoch = GradualUnfreezing(every={"epochs": 1})
    assert phases(by_epoch, 20, 4, per_epoch=5) == [3] * 5 + [2] * 5 + [1] * 5 + [0] * 5
    by_step = GradualUnfreezing(every={"steps": 3})
    assert phases(by_step, 10, 4) == [3] * 3 + [2] * 3 + [1] * 3 + [0]


def test_epochs_of_uneven_steps_leave_no_group_for_the_last_few_steps() -> None:
    found = phases(GradualUnfreezing(every={"epochs": 2}), 263, 6, per_epoch=26.25)
    thaws = [step for step in range(1, 263) if found[step] != found[step - 1]]
    assert thaws == [53, 105, 158, 210], "two epochs are 52.5 steps, ten are the whole budget"
    assert found[-1] == 1


@pytest.mark.parametrize("share", [0.1, 0.33, 0.5, 1.0])
@pytest.mark.parametrize(("steps", "groups"), [(7, 6), (100, 18), (1000, 14), (3, 6), (1, 4)])
def test_thawing_starts_with_the_head_never_turns_back_and_ends_in_time(
    share: float, steps: int, groups: int
) -> None:
    found = phases(GradualUnfreezing(share=share), steps, groups)
    assert found[0] == groups - 1
    assert found == sorted(found, reverse=True)
    # the law of equal distances: after step s, floor(s * thaws / (share * steps)) groups thawed
    thaws = groups - 1
    assert found == [thaws - min(int(s * thaws / (share * steps)), thaws) for s in range(steps)]


def test_tensors_thaw_two_at_a_time_in_reverse_order() -> None:
    """finetuning-scheduler on four linear layers: layer 3, then 2, 1, 0; later ones at 1e-5."""
    callback = TensorUnfreezing(2, every={"steps": 1})
    plan, timeline = callback.plan(Stack(4), 10, 10)
    added = [state.added for state in plan.states]
    layers = ["head", "backbone.2", "backbone.1", "backbone.0"]
    assert added == [{f"{layer}.weight", f"{layer}.bias"} for layer in layers]
    assert timeline.starts() == [0, 1, 2, 3]
    rates = [plan.rate(f"{layer}.weight", 0.1, 1.0, 9, timeline) for layer in layers]
    assert rates == [0.1, 1e-5, 1e-5, 1e-5]


def test_a_thawed_group_warms_up() -> None:
    callback = GradualUnfreezing(every={"steps": 5}, warmup={"length": {"steps": 3}}, lr=0.2)
    plan, timeline = callback.plan(Stack(3), 20, 10)
    rates = [plan.rate("backbone.1.weight", 1.0, 1.0, s, timeline) for s in range(4, 10)]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2, 0.2])
    assert {plan.rate("head.weight", 1.0, 1.0, s, timeline) for s in range(20)} == {1.0}


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_shares_out_of_range_are_refused(share: float) -> None:
    with pytest.raises(UserError, match="share"):
        GradualUnfreezing(share=share)
    with pytest.raises(UserError, match="share"):
        LinearProbing(share)


@pytest.mark.parametrize(
    "every", [{"steps": 0}, {"plateau": {}}, {"step": 1}, 3, {"epochs": 1, "steps": 1}]
)
def test_distances_that_are_no_length_are_refused(every) -> None:
    with pytest.raises(UserError, match=r"gradual_unfreezing\.every"):
        GradualUnfreezing(every=every)
