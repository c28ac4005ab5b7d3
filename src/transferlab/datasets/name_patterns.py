"""Signs that several images show one thing: identifiers shared by file names, folders, columns."""

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from transferlab.datasets.base import Index

_DATE = re.compile(r"(19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d([-_ T.]*(at )?\d\d[-_.]?\d\d[-_.]?\d\d)?")
_IDENTIFIER = re.compile(r"[^-_. ]*\d[^-_. ]*(?=[-_. ]+[^-_. ])")  # with a digit, and not the last
_CLASS_CODE = re.compile(r"\d+|n\d{8}")  # Caltech's numbers and WordNet's, which name classes
_COLUMN = re.compile(
    r"(patient|subject|person|object|video|scan|individual|case|group|writer|specimen|animal)"
    r"([-_ ]?(id|no|nr|number|name))?",
    re.IGNORECASE,
)
_LEVELS = 3  # identifiers tried, from the left: study1_p012_3 has its patient in the second
_BIG = 15  # images of a prefix, at the median, that rather name a class than a patient
_ENOUGH = 0.2  # share of images that are in a group of two or more


def shared(keys: Sequence[str]) -> dict[str, int]:
    """Count the keys that two images or more have."""
    return {key: count for key, count in Counter(keys).items() if count > 1}


def folder_keys(ids: Sequence[str]) -> list[str]:
    """Give each item the folder that it lies in."""
    return [posixpath.dirname(name) for name in ids]


def prefix_keys(ids: Sequence[str]) -> list[str]:
    """Give each item its name up to the first identifier that tells several groups apart.

    An identifier is a token with a digit in it, followed by more: ``p012`` in ``p012_1.jpg``.
    Dates don't count. An item without one is a group of its own.
    """
    found = [_prefixes(name) for name in ids]
    best = _at_level(ids, found, 0)
    for level in range(_LEVELS):
        keys = _at_level(ids, found, level)
        if len(shared(keys)) > 1:
            return keys
    return best


def grouped_prefixes(index: Index) -> list[str] | None:
    """Return the prefixes if they look like patients or objects, not like classes or counters."""
    keys = prefix_keys(index.ids)
    names = [posixpath.basename(name) for name in index.ids]
    seen = keys
    if len(set(names)) < len(names):  # counters start anew in every folder: 001_small.jpg in each
        folders = folder_keys(index.ids)
        seen = [f"{folder}/{key}" for folder, key in zip(folders, keys, strict=True)]
    sizes = shared(seen)
    if len(shared(keys)) < 2 or sum(sizes.values()) < _ENOUGH * len(index):
        return None
    return None if _name_classes(index, keys) else keys


def grouped_folders(index: Index) -> list[str] | None:
    """Return the folders of the items if classes hold several numbered folders of images."""
    keys = folder_keys(index.ids)
    numbered, owners = 0, set()
    for key, label in zip(keys, index.labels.tolist(), strict=True):
        parts = key.split("/")
        owners.add((parts[0], label))  # a class may lie below train and test
        deeper = index.classes[label] in parts[:-1]
        numbered += deeper and any(letter.isdigit() for letter in parts[-1])
    if numbered < _ENOUGH * len(index) or len(shared(keys)) < 2 * len(owners):
        return None
    return keys


def grouped_column(metadata: Mapping[str, Sequence[str]]) -> str | None:
    """Return the first column that is called like a patient and repeats its values."""
    for name, values in metadata.items():
        if _COLUMN.fullmatch(name) and 1 < len(set(values)) < len(values):
            return name
    return None


def _prefixes(name: str) -> list[str]:
    """List the beginnings of a name that end in an identifier and have something after them."""
    stem = posixpath.splitext(posixpath.basename(name))[0]
    stem = _DATE.sub("", stem)
    return [stem[: found.end()] for found in _IDENTIFIER.finditer(stem)]


def _at_level(ids: Sequence[str], found: Sequence[list[str]], level: int) -> list[str]:
    return [
        own[min(level, len(own) - 1)] if own else name for name, own in zip(ids, found, strict=True)
    ]


def _name_classes(index: Index, keys: Sequence[str]) -> bool:
    """Say whether the prefixes are names of classes: one a class, or a few big numeric codes."""
    sizes, labels = shared(keys), defaultdict(set)
    for key, label in zip(keys, index.labels.tolist(), strict=True):
        if key in sizes:
            labels[key].add(label)
    if any(len(own) > 1 for own in labels.values()):
        return False
    prefixes = Counter(label for own in labels.values() for label in own)
    if max(prefixes.values()) == 1:
        return True
    codes = all(_CLASS_CODE.fullmatch(key) for key in sizes)
    few = len(sizes) <= 4 * len(index.classes)
    return codes and few and sorted(sizes.values())[len(sizes) // 2] >= _BIG
