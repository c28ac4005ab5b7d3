"""Which columns of a Hugging Face table hold image and label, and what the labels are called."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transferlab.datasets.naming import drop_empty, encode_labels
from transferlab.errors import UserError, nearest


def declared_features(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """Read the features that ``datasets`` writes into a Parquet schema; empty if there are none."""
    try:
        found = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def choose_image_column(wanted: str | None, candidates: Sequence[str], names: Sequence[str]) -> str:
    """Choose the column that holds images.

    Args:
        wanted: what the user set, or None.
        candidates: the columns that look like images.
        names: all columns.

    Raises:
        UserError: there is no such column, or several candidates and no choice.
    """
    if wanted is not None:
        return require_column(wanted, names, "image_column")
    if len(candidates) == 1:
        return candidates[0]
    found = f"several ({', '.join(candidates)})" if candidates else "none"
    raise UserError(
        f"one column must hold images; {found} of {', '.join(names)} does. "
        "Set `target.dataset.image_column`."
    )


def require_column(name: str, names: Sequence[str], option: str) -> str:
    """Return ``name`` if there is such a column, else raise a UserError that names the nearest."""
    if name not in names:
        raise UserError(
            f"there is no column {name!r} (`target.dataset.{option}`); {nearest(name, names)}."
        )
    return name


def class_labels(
    values: Sequence[Any], feature: Any, column: str
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Turn a label column into labels and class names.

    Args:
        values: N cells, numbers or texts.
        feature: the column's declared feature; a ``ClassLabel`` brings the names.
        column: its name, for messages.

    Returns:
        (N,) int64 labels, and the names in label order; declared classes without a row are
        left out.

    Raises:
        UserError: a cell is empty, or lies outside the declared classes.
    """
    names = feature.get("names") if isinstance(feature, dict) else None
    if isinstance(names, dict):  # older writers number them: {"0": "cat"}
        names = [names[str(number)] for number in range(len(names))]
    without = sum(value is None or value == "" for value in values)
    if without:
        raise UserError(f"{without} of {len(values)} rows have no {column}. Leave them out.")
    if not names or isinstance(values[0], str):
        return encode_labels([str(value) for value in values])
    labels = np.asarray(values, dtype=np.int64)
    strange = labels[(labels < 0) | (labels >= len(names))]
    if len(strange):
        raise UserError(
            f"{len(strange)} rows have a {column} outside the {len(names)} declared classes, such "
            f"as {strange[0]} (-1 marks unlabelled rows). Leave these rows or files out."
        )
    return drop_empty(labels, [str(name) for name in names])
