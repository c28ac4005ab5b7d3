"""Names of classes and of official splits, as files and tables spell them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from transferlab.errors import UserError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""Accepted spellings of the official splits."""


def encode_labels(values: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Number class names in sorted order; whole numbers sort by value.

    Args:
        values: N class names.

    Returns:
        (N,) int64 labels in [0, C), and the C names in label order.
    """
    numeric = all(value.lstrip("-").isdecimal() for value in set(values))
    classes = sorted(set(values), key=(lambda v: (int(v), v)) if numeric else (lambda v: (0, v)))
    order = {name: label for label, name in enumerate(classes)}
    return np.array([order[value] for value in values], dtype=np.int64), tuple(classes)


def drop_empty(
    labels: NDArray[np.int64], names: Sequence[str]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Leave out declared classes that no image has, such as the ``N/A`` of EMNIST's letters.

    Args:
        labels: (N,) numbers of declared classes.
        names: the declared classes.

    Returns:
        (N,) int64 labels in [0, C), and the C names that occur, in the declared order.
    """
    present, compact = np.unique(labels, return_inverse=True)
    return compact.astype(np.int64), tuple(names[number] for number in present)


def require_classes(classes: Sequence[str], where: object) -> None:
    """Refuse data that nothing can be learnt from.

    Args:
        classes: the names of the classes that hold images.
        where: the dataset, for the message.

    Raises:
        UserError: there are fewer than two classes.
    """
    if len(classes) < 2:
        found = f"only one class ({classes[0]})" if classes else "no labelled image"
        raise UserError(f"{where} holds {found}; a classification needs two classes or more.")
