"""Random generators derived from what they are for, so that nothing depends on call order."""

import hashlib

import numpy as np


def generator(purpose: str, *numbers: int) -> np.random.Generator:
    """Make the generator that belongs to a purpose and its numbers.

    Two purposes never share a stream, so drawing one thing more elsewhere changes nothing here.

    Args:
        purpose: what is drawn, such as ``"test split"``.
        numbers: the seed first, then whatever else names the draw (an item, a class).

    Returns:
        A fresh generator; the same arguments always give the same stream.
    """
    text = "/".join([purpose, *(str(int(number)) for number in numbers)])
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16]))
