"""Batches: whatever shares them out, the images of a step are the same."""

import numpy as np
import pytest

from transferlab.datasets.batches import From, InOrder, Share, Shuffled

ITEMS = np.array([3, 5, 8, 13, 21, 34, 55], dtype=np.int64)
SHARES = [(1, 1), (2, 1), (1, 2), (2, 3), (3, 2), (4, 3), (12, 1), (1, 12)]


def micro_batches(ranks: int, parts: int, steps: int = 5) -> dict[tuple[int, int, int], list[int]]:
    """(step, rank, part) -> the items of that micro-batch."""
    found = {}
    for rank in range(ranks):
        batches = Shuffled(None, ITEMS, 12, steps, seed=1, share=Share(rank, ranks, parts))
        assert len(batches) == steps * parts
        for index in range(len(batches)):
            batch = batches[index]
            assert batch["step"] == index // parts
            assert batch["micro"] == index % parts
            found[batch["step"], rank, batch["micro"]] = batch["positions"].tolist()
    return found


@pytest.mark.parametrize(("ranks", "parts"), SHARES)
def test_the_parts_of_all_ranks_make_up_the_batch(ranks: int, parts: int) -> None:
    whole, shared = micro_batches(1, 1), micro_batches(ranks, parts)
    assert {len(items) for items in shared.values()} == {12 // (ranks * parts)}
    for step in range(5):
        union = [i for (at, _, _), items in shared.items() if at == step for i in items]
        assert sorted(union) == sorted(whole[step, 0, 0])


def test_a_rank_takes_every_nth_image_of_the_batch() -> None:
    whole, shared = micro_batches(1, 1), micro_batches(3, 2)
    for step in range(5):
        for rank in range(3):
            own = whole[step, 0, 0][rank::3]
            assert [shared[step, rank, part] for part in range(2)] == [own[0::2], own[1::2]]


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(ValueError, match="evenly"):
        Shuffled(None, ITEMS, 12, 5, seed=1, share=Share(0, 5, 1))


@pytest.mark.parametrize("start", [0, 1, 7, 10])
def test_a_resumed_order_is_the_rest_of_the_whole_one(start: int) -> None:
    resumed = From(start, 10)
    assert len(resumed) == 10
    assert list(resumed) == list(From(0, 10))[start:]
    assert list(resumed) == list(resumed)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12, 13, 24, 25])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_evaluation_serves_every_item_in_as_many_batches_on_every_rank(
    count: int, ranks: int
) -> None:
    items = np.arange(100, 100 + count)
    shares = [InOrder(None, items, 4, Share(rank, ranks)) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    served = [
        [int(p) for index in range(len(share)) for p in share[index]["positions"]]
        for share in shares
    ]
    assert {p for own in served for p in own} == set(items.tolist())
    for rank, share in enumerate(shares):
        assert all(0 < len(share[index]["positions"]) <= 4 for index in range(len(share)))
        assert served[rank][: len(items[rank::ranks])] == items[rank::ranks].tolist()
    if ranks == 1:
        assert served[0] == items.tolist()
