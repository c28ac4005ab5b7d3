"""A dataset as a run uses it: decoded for one backbone, and split."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from transferlab.backbones.opening import resolve_preprocessing
from transferlab.backbones.timm import Preprocessing
from transferlab.building import build
from transferlab.cache import cache_folder
from transferlab.datasets.cache import ImageSpec
from transferlab.datasets.chosen import Chosen
from transferlab.datasets.composed import ComposedStore, Part, compose
from transferlab.datasets.grouping import resolve_groups
from transferlab.datasets.policy import ImagePolicy
from transferlab.datasets.splits import Splits, make_splits, read_splits, write_splits
from transferlab.datasets.store import ImageStore, open_store
from transferlab.datasets.subsets import draw_subset
from transferlab.errors import UserError
from transferlab.randomness import derive_seed
from transferlab.records import FORMAT, sha256, sha256_record

Positions = NDArray[np.int64]
NO_IMAGES = ("name", "shots", "fraction", "pretrain", "kind", "tag", "path", "classes", "licence",
             "near_duplicates", "report_by", "also_test")  # fmt: skip
"""Options of a dataset that change neither its images nor its splits."""
SPLIT_SETTINGS = (
    "test", "validation", "max_validation", "split_seed", "validation_seed", "group_by",
    "duplicates",
)  # fmt: skip


@dataclass(frozen=True)
class Data:
    """A dataset, decoded for one backbone and split.

    Attributes:
        store: the images and labels.
        splits: positions of train, validation and test.
        groups: (N,) group of every image, or None.
        preprocessing: the backbone's input.
    """

    store: ImageStore
    splits: Splits
    groups: NDArray[np.int64] | None
    preprocessing: Preprocessing

    def subset(self, shots: int | None, fraction: float | None, seed: int) -> Positions:
        """Return the replicate's training items, nested over sizes for one seed."""
        if shots is None and fraction is None:
            return self.splits.train
        return draw_subset(
            self.store.labels, self.splits.train, self.groups,
            shots=shots, fraction=fraction, seed=derive_seed(seed, "subset"),
            classes=self.store.classes,
        )  # fmt: skip


def data_name(node: DictConfig) -> str:
    """Return what a dataset is called: its ``name``, else the last part of its root or path."""
    if node.name:
        return str(node.name)
    path = node.root or (node.dataset or {}).get("path")
    return Path(str(path)).stem if path else "data"


def open_data(node: DictConfig, backbone: DictConfig) -> Data:
    """Decode and split a dataset once per process; other processes read the same files.

    A node with ``parts`` is several datasets that are read as one; a single part that is left of
    it is what it would be alone.
    """
    preprocessing = resolve_preprocessing(backbone)
    if node.get("parts"):
        return _open_parts(node, backbone, preprocessing)
    wanted = OmegaConf.to_container(node, resolve=True)
    assert isinstance(wanted, dict)
    kept = {str(key): value for key, value in wanted.items() if key not in NO_IMAGES}
    return _open(sha256_record(kept), _Frozen(kept), preprocessing)


def _open_parts(node: DictConfig, backbone: DictConfig, preprocessing: Preprocessing) -> Data:
    opened: dict[str, Data] = {}
    for name, part in node.parts.items():
        if name != node.leave_out:
            try:
                opened[str(name)] = open_data(part, backbone)
            except UserError as error:
                told = str(error).replace("`target.", f"`target.parts.{name}.")
                raise UserError(told) from error
    if len(opened) == 1:
        return next(iter(opened.values()))
    parts = {name: Part(data.store, data.splits, data.groups) for name, data in opened.items()}
    union = compose(parts, join=node.join, duplicates=node.duplicates)
    return Data(union.store, union.splits, union.groups, preprocessing)


def images_by_part(data: Data, name: str) -> dict[str, int]:
    """Count a dataset's training images, those of a composed one part by part.

    Args:
        data: what is counted.
        name: what a dataset without parts is called.
    """
    if not isinstance(data.store, ComposedStore):
        return {name: len(data.splits.train)}
    inside = np.searchsorted(data.splits.train, data.store.bounds)
    counts = np.diff(inside).tolist()
    return {part: int(count) for part, count in zip(data.store.parts, counts, strict=True)}


class _Frozen(dict[str, Any]):
    """A dict that lru_cache takes: its equality is decided by the hash beside it."""

    def __hash__(self) -> int:  # type: ignore[override]
        return 0


def open_images(node: Mapping[str, Any], preprocessing: Preprocessing) -> ImageStore:
    """Decode a dataset for one backbone, without splitting it.

    Args:
        node: ``dataset``, ``only``, ``half``, ``images``, ``corruption`` and ``corruption_seed``,
            in plain containers.
        preprocessing: settles the size.
    """
    dataset = build(OmegaConf.create(node["dataset"]))
    if node.get("only") is not None or node.get("half") is not None:
        dataset = Chosen(dataset, node.get("only"), node.get("half"))
    return open_store(
        dataset,
        spec=ImageSpec(preprocessing.size, preprocessing.interpolation, preprocessing.crop_pct),
        policy=ImagePolicy(**node["images"]),
        corruption=node["corruption"],
        corruption_seed=node["corruption_seed"],
        folder=cache_folder() / "decoded",
    )


@lru_cache(maxsize=32)
def _open(key: str, node: _Frozen, preprocessing: Preprocessing) -> Data:
    del key
    store = open_images(node, preprocessing)
    if len(store.classes) < 2:
        raise UserError(f"the data has one class, {store.classes[0]!r}: nothing to tell apart.")
    groups = resolve_groups(store.index, node["group_by"])
    settings = {name: node[name] for name in SPLIT_SETTINGS}
    bound = None if groups is None else sha256(groups.tobytes())  # names may change, images not
    name = sha256_record([store.fingerprint, settings, bound, FORMAT])[:24]
    path = cache_folder() / "splits" / f"{name}.npz"
    try:
        splits = read_splits(path)
    except UserError:  # missing, or cut short by another's crash: the same ones are drawn again
        settings.pop("group_by")
        write_splits(path, make_splits(store.index, store.content, groups, **settings))
        splits = read_splits(path)
    return Data(store, splits, groups, preprocessing)
