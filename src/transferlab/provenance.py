"""What a run is made of, for its record: whose data and weights, which images, what terms."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import timm
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from transferlab.backbones.opening import is_module
from transferlab.errors import UserError
from transferlab.evaluation import report_columns
from transferlab.records import Record, sha256, sha256_record
from transferlab.split_data import Data

UNKNOWN = "unknown"
"""Recorded where nobody stated a licence: never an empty field."""
Ints = NDArray[np.int64]


def provenance(cfg: DictConfig, data: Data, train: Ints, source: Data | None) -> Record:
    """Return what a card tells of a run's data and terms.

    Args:
        cfg: the run's configuration.
        data: the target.
        train: positions of the training subset.
        source: the dataset of the source run, or None.
    """
    names = list(cfg.target.report_by)
    columns = report_columns(data.store.index, names)
    augmentation: Any = cfg.augmentation
    if OmegaConf.is_config(augmentation):
        augmentation = OmegaConf.to_container(augmentation, resolve=True)
    ids = "\n".join(data.store.ids[p] for p in train)
    return {
        "train_ids_sha256": sha256(ids),
        "transforms_sha256": sha256_record([data.preprocessing.fingerprint, augmentation]),
        "source_fingerprint": None if source is None else source.store.fingerprint,
        "source_split_sha256": None if source is None else source.splits.sha256,
        "composition": {
            "target": composition(data, columns) | {"train_subset": _classes(data, train)},
            "source": None if source is None else composition(source, {}),
        },
        "report_by": names,
        "report_sha256": sha256_record(columns) if names else None,
    }


def composition(data: Data, columns: Mapping[str, Sequence[str]]) -> Record:
    """Count a dataset's images by class, group and column, split by split."""
    parts = {
        "train": data.splits.train, "validation": data.splits.validation, "test": data.splits.test,
    }  # fmt: skip
    groups = data.groups
    return {
        "classes": {split: _classes(data, own) for split, own in parts.items()},
        "groups": None
        if groups is None
        else {split: len(np.unique(groups[own])) for split, own in parts.items()},
        "columns": {
            name: {split: dict(sorted(Counter(values[p] for p in own).items()))
                   for split, own in parts.items()}
            for name, values in columns.items()
        },
    }  # fmt: skip


def _classes(data: Data, positions: Ints) -> dict[str, int]:
    counts = np.bincount(data.store.labels[positions], minlength=len(data.store.classes))
    return dict(zip(data.store.classes, counts.tolist(), strict=True))


def licences(cfg: DictConfig, further: Mapping[str, str | None]) -> Record:
    """Return the licence of everything that a run uses; ``unknown`` where none is stated.

    Args:
        cfg: the run's configuration.
        further: of the further test sets, by name.

    Returns:
        ``target``, ``source`` (None where weights are random), ``backbone`` and ``also_test``.
    """
    return {
        "target": cfg.target.licence or UNKNOWN,
        "source": _of_source(cfg),
        "backbone": cfg.backbone.licence or _of_backbone(cfg),
        "also_test": {name: licence or UNKNOWN for name, licence in further.items()},
    }


def check_licences(found: Record, allowed: Sequence[str] | None) -> None:
    """Refuse what is under none of the allowed licences.

    Args:
        found: as :func:`licences` returns it.
        allowed: names; None allows everything. Letters' case does not count.

    Raises:
        UserError: the first one that is not allowed, an unknown one included.
    """
    if allowed is None:
        return
    known = {str(name).casefold() for name in allowed}
    used = {f"{key}.licence": found[key] for key in ("target", "source", "backbone")}
    used |= {f"target.also_test.{name}.licence": own for name, own in found["also_test"].items()}
    for key, licence in used.items():
        for part in () if licence is None else str(licence).split(" AND "):
            if part.strip().casefold() not in known:
                raise UserError(
                    f"`{key}={licence}`: {part.strip()!r} is not in allowed_licences="
                    f"[{', '.join(map(str, allowed))}]. Use other data or weights, add it there, "
                    f"or set `{key}` to the licence that holds."
                )


def _of_source(cfg: DictConfig) -> str | None:
    source = cfg.source
    if source.kind == "none":
        return None
    if source.licence is not None:
        return str(source.licence)
    if source.kind == "published":
        return str(cfg.backbone.licence or _published(cfg) or UNKNOWN)
    parts = source.get("parts") or {}
    stated = [
        str(part.get("licence") or UNKNOWN)
        for name, part in parts.items()
        if name != source.get("leave_out")
    ]
    return " AND ".join(dict.fromkeys(stated)) or UNKNOWN


def _of_backbone(cfg: DictConfig) -> str:
    """Return the terms of published weights, else of timm's code; a module states its own."""
    if is_module(cfg.backbone):
        return UNKNOWN
    return (_published(cfg) or UNKNOWN) if cfg.source.kind == "published" else "Apache-2.0"


def _published(cfg: DictConfig) -> str | None:
    name = str(cfg.backbone.name)
    full = f"{name}.{cfg.source.tag}" if cfg.source.tag else name
    try:
        config: Any = timm.get_pretrained_cfg(full)
    except RuntimeError:  # no such tag, which is told where the weights are opened
        return None
    stated = getattr(config, "license", None)
    return str(stated) if stated else None
