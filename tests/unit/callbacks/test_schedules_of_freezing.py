import pytest

from transferlab.callbacks.freezing import FrozenBackbone, LinearProbing
from transferlab.callbacks.gradual_unfreezing import GradualUnfreezing
from transferlab.errors import UserError


def phases(callback, steps: int, groups: int) -> list[int]:
    return [callback.first_trained(step, steps, groups) for step in range(steps)]


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


@pytest.mark.parametrize("share", [0.1, 0.33, 0.5, 1.0])
@pytest.mark.parametrize(("steps", "groups"), [(7, 6), (100, 18), (1000, 14), (3, 6)])
def test_thawing_starts_with_the_head_never_turns_back_and_ends_in_time(
    share: float, steps: int, groups: int
) -> None:
    callback = GradualUnfreezing(share=share)
    found = phases(callback, steps, groups)
    assert found[0] == groups - 1
    assert found == sorted(found, reverse=True)
    assert callback.first_trained(steps, steps, groups) == 0
    for step in range(round(share * steps + 0.5), steps):
        assert found[step] == 0


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_shares_out_of_range_are_refused(share: float) -> None:
    with pytest.raises(UserError, match="share"):
        GradualUnfreezing(share=share)
    with pytest.raises(UserError, match="share"):
        LinearProbing(share)
