"""Are test images among those that a model learned from? Counted for every run, refused by default.

Training and validation of the target and of the source are compared with what is tested, by
content and by near copies of it. Signatures and counts are cached by fingerprint: they cost once.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transferlab.cache import cache_folder
from transferlab.datasets.near_duplicates import (
    DIFFERENCE,
    RADIUS,
    VERSION,
    Signatures,
    cached_signatures,
    near_copies,
)
from transferlab.datasets.store import ImageStore
from transferlab.errors import UserError
from transferlab.records import Record, read_json, sha256, sha256_record, write_json
from transferlab.split_data import Data

LIMIT = 0.001
"""Share of the tested images above which copies are refused."""
RULE = {"hash": "dHash, 64 bits", "bits": RADIUS, "difference": DIFFERENCE}
_log = logging.getLogger(__name__)
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Images:
    """Some images of a store.

    Attributes:
        store: where they lie.
        positions: (n,) of them.
        size: the preprocessing's fingerprint: signatures are of decoded images.
    """

    store: ImageStore
    positions: Ints
    size: str

    @property
    def key(self) -> str:
        """Hash of what is compared."""
        return sha256_record([self.store.fingerprint, self.size, sha256(self.positions.tobytes())])


def learned_from(data: Data) -> Images:
    """Return a dataset's training and validation images: both shape what is tested."""
    both = np.sort(np.concatenate([data.splits.train, data.splits.validation]))
    return Images(data.store, both, data.preprocessing.fingerprint)


def near_duplicates(
    data: Data, source: Data | None, further: Mapping[str, tuple[ImageStore, Ints]], mode: str
) -> Record | None:
    """Count the tested images that have a copy among those learned from.

    Args:
        data: the target.
        source: the dataset of the source run; None where there is none, or none at hand.
        further: further test sets by name, each with the positions that are tested.
        mode: ``refuse`` more than ``LIMIT`` of a test set, ``warn`` of them, or ``ignore``.

    Returns:
        The rule and counts of each pair of sets, as docs/records.md says; None where ignored.

    Raises:
        UserError: too many copies; names two of them and the remedy.
    """
    if mode == "ignore":
        return None
    size = data.preprocessing.fingerprint
    learned = {"train": learned_from(data)}
    if source is not None:
        learned["source"] = learned_from(source)
    tested = {"test": Images(data.store, data.splits.test, size)} | {
        name: Images(store, positions, size) for name, (store, positions) in further.items()
    }
    found: Record = {"rule": RULE, "limit": LIMIT, "mode": mode}
    counts = {(a, b): _count(learned[a], tested[b]) for b in tested for a in learned}
    for (a, b), count in counts.items():
        _judge(a, b, count, mode)
    found |= {f"{a}_test": counts.get((a, "test")) for a in ("train", "source")}
    found["source_validation"] = None
    if source is not None:
        chosen_on = Images(data.store, data.splits.validation, size)
        found["source_validation"] = count = _count(learned["source"], chosen_on)
        if _copies(count) > LIMIT * int(count["of"]):
            _warn(
                f"{_copies(count)} of {count['of']} validation images are also in the source, such "
                f"as {count['examples'][0][0]}: scores on validation favour it, and so may what is "
                "chosen there. The test split is not touched by that."
            )
    return found | {
        "also_test": {
            name: {a: counts.get((a, name)) for a in ("train", "source")} for name in further
        }
    }


def _judge(learned: str, tested: str, count: Record, mode: str) -> None:
    copies = _copies(count)
    if copies <= LIMIT * int(count["of"]):
        return
    ours, theirs = count["examples"][0]
    what = "the test split" if tested == "test" else f"target.also_test.{tested}"
    where = "the target's training and validation images" if learned == "train" else "the source"
    said = (
        f"{copies} of {count['of']} images of {what} are also in {where} ({count['exact']} exact, "
        f"{count['near']} nearly), such as {ours} and {theirs}; at most {LIMIT:.1%} may be."
    )
    if mode == "warn":
        _warn(said)
        return
    raise UserError(
        f"{said} Remove them, bind them by `target.group_by`, or set target.near_duplicates=warn "
        "and know that scores are too good."
    )


def _copies(count: Record) -> int:
    return int(count["exact"]) + int(count["near"])


@lru_cache(maxsize=256)
def _warn(said: str) -> None:
    """Say it once a process: a study plans its runs by the hundred."""
    _log.warning(said)


def _count(learned: Images, tested: Images) -> Record:
    path = _folder() / f"{sha256_record([VERSION, learned.key, tested.key])[:24]}.json"
    known: dict[str, Any]
    try:
        known = read_json(path)
    except (OSError, ValueError):
        known = _compare(learned, tested)
        write_json(path, known)
    names = [(tested.store.ids[a], learned.store.ids[b]) for a, b in known["examples"]]
    return {**known, "examples": [list(pair) for pair in names]}


def _compare(learned: Images, tested: Images) -> dict[str, Any]:
    """Count copies; examples are pairs of positions, since the names of files are not hashed."""
    shown = learned.store.shown
    first = {shown[p]: int(p) for p in reversed(learned.positions)}
    own = tested.store.shown
    exact = {int(p): first[own[p]] for p in tested.positions if own[p] in first}
    rest = np.array([p for p in tested.positions if int(p) not in exact], dtype=np.int64)
    near = near_copies(
        _signatures(tested)[rest], _signatures(learned)[learned.positions]
    )  # places in the two selections
    pairs = [*exact.items(), *((int(rest[a]), int(learned.positions[b])) for a, b in near.items())]
    return {
        "exact": len(exact),
        "near": len(near),
        "of": len(tested.positions),
        "examples": sorted(pairs)[:2],
    }


def _signatures(images: Images) -> Signatures:
    store = images.store
    path = _folder() / f"{sha256_record([VERSION, store.fingerprint, images.size])[:24]}.npz"
    return cached_signatures(path, store.images, len(store))


def _folder() -> Path:
    return cache_folder() / "near_duplicates"
