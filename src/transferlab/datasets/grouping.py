"""Which images belong together: patients, objects, videos; asked when file names suggest it."""

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from transferlab.datasets.base import Index
from transferlab.datasets.name_patterns import (
    folder_keys,
    grouped_column,
    grouped_folders,
    grouped_prefixes,
    prefix_keys,
    shared,
)
from transferlab.errors import UserError, nearest

Ints = NDArray[np.int64]


def resolve_groups(index: Index, group_by: str | None) -> Ints | None:
    """Give every image its group, or find that there are none.

    Args:
        index: N images.
        group_by: ``none``; ``prefix``, the part of the file name up to its first identifier
            (``p012`` of ``p012_1.jpg``); ``folder``, the folder that a file lies in;
            ``regex:...``, what one pair of parentheses finds in the item's id; the name of a
            metadata column; or None when the user has not said.

    Returns:
        (N,) int64 groups in [0, G), or None.

    Raises:
        UserError: the user has not said and names look grouped, the column is unknown, or the
            rule doesn't find a group.
    """
    if group_by is None:
        _ask(index)
        return None
    if group_by == "none":
        return None
    if group_by.startswith("regex:"):
        return _number(_by_regex(index.ids, group_by.removeprefix("regex:")))
    if group_by in index.metadata:
        return _number(_by_column(index, group_by))
    rules: dict[str, Callable[[Sequence[str]], list[str]]] = {
        "prefix": prefix_keys,
        "folder": folder_keys,
    }
    if group_by not in rules:
        near = nearest(group_by, ["none", "regex:...", *rules, *index.metadata])
        raise UserError(f"`target.group_by={group_by}` is no column of this dataset; {near}.")
    keys = rules[group_by](index.ids)
    if not shared(keys):
        raise UserError(
            f"`target.group_by={group_by}` finds no two images that belong together (the first "
            f"are {', '.join(index.ids[:3])}). Use `target.group_by=none`, or `regex:...`."
        )
    return _number(keys)


def _number(keys: Sequence[str]) -> Ints:
    return np.unique(np.asarray(keys), return_inverse=True)[1].astype(np.int64)


def _by_column(index: Index, column: str) -> tuple[str, ...]:
    values = index.metadata[column]
    empty = [name for name, value in zip(index.ids, values, strict=True) if not value]
    if empty:
        raise UserError(
            f"`target.group_by={column}`: {len(empty)} images have no value there, the first is "
            f"{empty[0]}. Fill the column in."
        )
    return values


def _by_regex(ids: Sequence[str], pattern: str) -> list[str]:
    try:
        rule = re.compile(pattern)
    except re.error as error:
        raise UserError(f"`target.group_by=regex:{pattern}` is no pattern ({error}).") from error
    if rule.groups != 1:
        raise UserError(
            f"`target.group_by=regex:{pattern}` has {rule.groups} groups and needs one pair of "
            "parentheses, around what names the patient or object."
        )
    keys = []
    for name in ids:
        found = rule.search(name)
        if found is None or found[1] is None:
            raise UserError(f"`target.group_by=regex:{pattern}` doesn't match the image {name}.")
        keys.append(found[1])
    return keys


def _ask(index: Index) -> None:
    """Raise if the data look grouped and nobody has said whether they are."""
    column = grouped_column(index.metadata)
    if column is not None:
        raise UserError(
            f"the column {column!r} looks like it says which images belong together "
            f"({len(set(index.metadata[column]))} values for {len(index)} images). "
            + _answers(column)
        )
    kinds = {
        "prefix": ("file names", grouped_prefixes(index)),
        "folder": ("sub-folders", grouped_folders(index)),
    }
    for answer, (what, keys) in kinds.items():
        if keys is None:
            continue
        sizes = shared(keys)
        key = sorted(sizes)[0]
        members = [name for name, own in zip(index.ids, keys, strict=True) if own == key]
        raise UserError(
            f"the {what} look grouped: {', '.join(members[:3])} share {key!r}, and "
            f"{len(index)} images make {len(set(keys))} such groups. " + _answers(answer)
        )


def _answers(answer: str) -> str:
    return (
        f"If a group is one patient, object or video, set `target.group_by={answer}`, which "
        "keeps it on one side of every split; else set `target.group_by=none`."
    )
