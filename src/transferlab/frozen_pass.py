"""What leaves the frozen parts of a model for some images, in one pass over them."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from transferlab.datamodule import Positions
from transferlab.feature_cache import Activations
from transferlab.forward_graph import NoCutError
from transferlab.frozen_part import Cut, OnePass, Values, per_image

BLOCK = 64
"""Images that the frozen part takes at a time, always: in another company last bits could move."""
TRIED = 2
"""Images that are sent through it once more, to see that it computes the same."""
RANDOM = 1e-3
"""Relative difference between two passes over the same images above which something is random."""


def computed(
    cuts: Sequence[Cut],
    images_of: Callable[[Positions], Tensor],
    positions: Positions,
    most: float,
    most_an_image: float,
) -> list[Activations]:
    """Send items through the frozen part, block by block.

    Args:
        cuts: of one model. The first is needed now, the others later: of these as many, from the
            first on, as leave room.
        images_of: returns the items' (B, C, H, W) input.
        positions: of the items.
        most: bytes that the first cut's values may take.
        most_an_image: bytes an item that those of all cuts together may take.

    Returns:
        what crosses the cuts, for the first and as many others as leave room.

    Raises:
        NoCutError: the first cut's values take more memory, are not one an image, or are random.
    """
    blocks = -(-len(positions) // BLOCK)
    made: list[_Values] = []
    through = OnePass(cuts)
    with torch.no_grad():
        for start in range(0, blocks * BLOCK, BLOCK):
            own = positions[start : start + BLOCK]
            images = images_of(np.resize(own, BLOCK))
            found = through(images)
            if not start:
                made = [_Values(cut, images, values, len(positions))
                        for cut, values in zip(cuts, found, strict=True)]  # fmt: skip
                require_room(made[0].size * len(positions), len(positions), most)
                room = np.cumsum([one.size for one in made]) <= most_an_image
                made = made[: max(int(room.argmin()) if not room.all() else len(made), 1)]
                if len(made) < len(cuts):
                    through = OnePass(cuts[: len(made)])
            for one, values in zip(made, found, strict=False):
                one.put(values, start, len(own))
    return [one.activations(blocks) for one in made]


class _Values:
    """What crosses one cut, with room for all items, from those of the first block on."""

    def __init__(self, cut: Cut, images: Tensor, values: Values, items: int) -> None:
        with FlopCounterMode(display=False) as counter:
            again = cut.before(images[:TRIED])
        self.multiply_adds = counter.get_total_flops() // 2 // TRIED  # an image
        found = per_image(values, BLOCK)
        _require_same(found, again)
        self.size = sum(value[0].numel() * value.element_size() for value in found)  # an image
        self.maps = tuple(
            v.ndim == 4 and v.is_contiguous(memory_format=torch.channels_last) for v in found
        )
        self._items = items
        self._room: list[Tensor] = []

    def put(self, values: Values, start: int, count: int) -> None:
        """Keep so many items' values, of a block; the first of them is item ``start``."""
        rows = [
            v.permute(0, 2, 3, 1) if own else v for v, own in zip(values, self.maps, strict=True)
        ]
        if not self._room:
            self._room = [v.new_empty((self._items, *v.shape[1:])) for v in rows]
        for room, value in zip(self._room, rows, strict=True):
            room[start : start + count] = value[:count]

    def activations(self, blocks: int) -> Activations:
        """Return the values of all items, after so many blocks."""
        return Activations(tuple(self._room), self.maps, self.multiply_adds * BLOCK * blocks)


def require_room(size: int, images: int, most_bytes: float) -> None:
    """Find out that values take too much memory.

    Raises:
        NoCutError: they do.
    """
    if size > most_bytes:
        raise NoCutError(
            f"what leaves its frozen part takes {size / 2**30:.1f} GiB for {images} images, and "
            f"trainer.reuse_gb leaves {most_bytes / 2**30:.1f}"
        )


def _require_same(found: Values, again: Values) -> None:
    for one, other in zip(found, again, strict=True):
        one = one[: len(other)].float()
        if not torch.allclose(one, other.float(), RANDOM, float(one.abs().max()) * RANDOM):
            raise NoCutError("its frozen part computes something else each time")
