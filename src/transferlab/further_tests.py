"""Test sets besides the target's own: another hospital, another domain, the same classes."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from transferlab.backbones.opening import resolve_preprocessing
from transferlab.backbones.timm import Preprocessing
from transferlab.datamodule import TransferDataModule
from transferlab.datasets.grouping import resolve_groups
from transferlab.datasets.store import ImageStore
from transferlab.errors import UserError, nearest
from transferlab.evaluation import report_columns
from transferlab.records import sha256, sha256_record
from transferlab.split_data import Data, open_images

OPTIONS = ("root", "dataset", "images", "group_by", "report_by", "licence")
"""What a further test set may say; for the rest it is read as the target is."""
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class FurtherTest:
    """A set that a run is tested on besides its target's test split.

    Attributes:
        store: its images; labels are numbers of the target's classes.
        positions: (M,) its official test split, or all images where it brings none.
        groups: (N,) group of every image, or None.
        columns: metadata by name, N values each, that predictions carry.
        licence: as the set states it, or None.
    """

    store: ImageStore
    positions: Ints
    groups: Ints | None
    columns: dict[str, tuple[str, ...]]
    licence: str | None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what is tested: content, labels in the target's order, groups."""
        groups = None if self.groups is None else self.groups[self.positions].tobytes()
        own = [self.store.fingerprint, sha256(self.store.labels[self.positions].tobytes())]
        return sha256_record([*own, None if groups is None else sha256(groups)])


def further_tests(target: DictConfig, backbone: DictConfig, data: Data) -> dict[str, FurtherTest]:
    """Open the sets of ``target.also_test`` by name; none for most runs.

    Args:
        target: the configuration's part.
        backbone: settles the preprocessing, which is the target's.
        data: the target.

    Raises:
        UserError: an unknown option, a set that can't be read, other classes than the target's,
            or a column of ``report_by`` that it lacks.
    """
    found = {}
    for name, node in further_nodes(target).items():
        try:
            found[name] = _open(sha256_record(node), _Frozen(node), resolve_preprocessing(backbone),
                                data.store.classes)  # fmt: skip
        except UserError as error:
            told = str(error).replace("`target.", f"`target.also_test.{name}.")
            if told == str(error):
                told = f"target.also_test.{name}: {told}"
            raise UserError(told) from error
    return found


def further_nodes(target: DictConfig) -> dict[str, dict[str, Any]]:
    """Return every further set's node: the target's, with what the set says itself.

    Raises:
        UserError: an option that no set has, or a set that says nothing.
    """
    entries: Any = OmegaConf.to_container(OmegaConf.create({"all": target.also_test}), resolve=True)
    own: Any = OmegaConf.to_container(target, resolve=True)
    given = entries["all"] or {}
    if not isinstance(given, Mapping):
        raise UserError(f"target.also_test={given}: expected sets by name; {_EXAMPLE}.")
    return {str(name): _node(str(name), entry, own) for name, entry in given.items()}


_EXAMPLE = "write target.also_test.NAME.root=DIR"


def _node(name: str, entry: Any, target: dict[str, Any]) -> dict[str, Any]:
    where = f"target.also_test.{name}"
    if not isinstance(entry, Mapping) or not (entry.get("root") or entry.get("dataset")):
        raise UserError(f"{where}={entry}: it names no images; {_EXAMPLE}, or .dataset.")
    if not name.replace("_", "").replace("-", "").isalnum():
        raise UserError(f"{where}: its name names a file; use letters, digits, '_' and '-'.")
    for key in entry:
        if key not in OPTIONS:
            raise UserError(f"unknown key {where}.{key} ({nearest(str(key), OPTIONS)}).")
    dataset = dict(entry.get("dataset") or {})
    if "_target_" not in dataset:  # the target's kind of dataset, somewhere else
        dataset = dict(target["dataset"]) | dataset
        if entry.get("root") is not None:
            if "root" not in dataset:
                kind = dataset["_target_"].rpartition(".")[2]
                raise UserError(
                    f"{where}.root={entry['root']}: {kind} reads no folder. Give {where}.dataset, "
                    "with the _target_ of one that does."
                )
            dataset["root"] = entry["root"]
    return {
        "dataset": dataset,
        "images": {**target["images"], **(entry.get("images") or {})},
        "group_by": entry.get("group_by", target["group_by"]),
        "report_by": list(entry.get("report_by", target["report_by"]) or []),
        "licence": entry.get("licence"),
        "corruption": "none",
        "corruption_seed": 0,
    }


class _Frozen(dict[str, Any]):
    """A dict that lru_cache takes: its equality is decided by the hash beside it."""

    def __hash__(self) -> int:  # type: ignore[override]
        return 0


@lru_cache(maxsize=8)
def _open(
    key: str, node: _Frozen, preprocessing: Preprocessing, classes: tuple[str, ...]
) -> FurtherTest:
    del key
    store = open_images(node, preprocessing)
    splits = np.asarray(store.index.splits or ("test",) * len(store))
    own = splits == "test"
    positions = np.flatnonzero(own if own.any() else np.ones(len(store), dtype=bool))
    return FurtherTest(
        store=_in_order_of(store, classes),
        positions=positions.astype(np.int64),
        groups=resolve_groups(store.index, node["group_by"]),
        columns=report_columns(store.index, node["report_by"]),
        licence=node["licence"],
    )


def _in_order_of(store: ImageStore, classes: tuple[str, ...]) -> ImageStore:
    """Return the store with labels that count the target's classes, which it must share by name."""
    strange = [name for name in store.classes if name not in classes]
    missing = [name for name in classes if name not in store.classes]
    if strange or missing:
        said = f"has the class {strange[0]!r}" if strange else f"lacks the class {missing[0]!r}"
        raise UserError(
            f"the set {said}, unlike the target ({nearest((strange or missing)[0], classes)}). "
            "A further test set has the target's classes, by name."
        )
    places = np.array([classes.index(name) for name in store.classes], dtype=np.int64)
    mapped = copy.copy(store)
    mapped.labels, mapped.classes = places[store.labels], classes
    return mapped


def serving(data: TransferDataModule, test: FurtherTest) -> TransferDataModule:
    """Return a data module that serves a further set's images as ``data`` serves the target's."""
    made = TransferDataModule(
        test.store,
        train=test.positions[:0],
        validation=test.positions[:0],
        preprocessing=data.preprocessing,
        batch_size=data.batch_size,
        accumulate=data.accumulate,
        data=data.data,
        workers=data.workers,
        channels_last=data.channels_last,
    )
    made.predicted = [test.positions]
    return made
