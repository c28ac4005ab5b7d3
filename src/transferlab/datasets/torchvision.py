"""torchvision's classification datasets, by name."""

import inspect
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transferlab.datasets.base import Index
from transferlab.datasets.naming import drop_empty, encode_labels, require_classes
from transferlab.datasets.opening import DAMAGE, broken
from transferlab.errors import UserError, nearest
from transferlab.records import sha256

CLASSIFICATION = (
    *("CIFAR10", "CIFAR100", "Caltech101", "Caltech256", "Country211", "DTD", "EMNIST", "EuroSAT"),
    *("FER2013", "FGVCAircraft", "FakeData", "FashionMNIST", "Flowers102", "Food101", "GTSRB"),
    *("INaturalist", "ImageNet", "Imagenette", "KMNIST", "LFWPeople", "MNIST", "Omniglot"),
    *("OxfordIIITPet", "PCAM", "Places365", "QMNIST", "RenderedSST2", "SEMEION", "STL10"),
    *("SUN397", "SVHN", "StanfordCars", "USPS"),
)
"""The sets that give one class an image; those of detection, captions or video don't."""

_SPELLINGS = {
    "train": ("train", "trainval", "train-standard", "2021_train"),
    "validation": ("val", "valid"),
    "test": ("test",),
}
"""What ``split=`` is called in the various sets; the first that a set takes is used."""

_PROBES = 16  # images whose pixels count in the stamp, since the sets hide their files


class TorchVision:
    """A torchvision dataset with its official splits.

    Args:
        name: torchvision's name for it, in any case: ``CIFAR10``, ``flowers102``.
        root: the folder that holds, or is to hold, its files.
        download: fetch the files if they are missing.
        options: further arguments of the set itself, such as EMNIST's ``split: letters``.
    """

    def __init__(
        self,
        name: str,
        root: str | Path,
        download: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        by_lower = {known.lower(): known for known in CLASSIFICATION}
        if name.lower() not in by_lower:
            raise UserError(
                f"torchvision has no classification set {name!r}; {nearest(name, CLASSIFICATION)}."
            )
        self.name = by_lower[name.lower()]
        self.root, self.download = Path(root).expanduser(), download
        self.options = dict(options or {})

    def index(self) -> Index:
        """List the images of all official splits, train first."""
        return self._index

    def image(self, position: int) -> Image.Image:
        """Return one image."""
        for split, part in self._parts.items():
            if position < len(part):
                return self._read(part, position, split)
            position -= len(part)
        raise IndexError(position)

    def _read(self, part: Any, position: int, split: str) -> Image.Image:
        try:
            image: Image.Image = part[position][0]
        except DAMAGE as error:
            raise broken(f"{self.name}/{split or 'all'}/{position:06d}", error) from error
        return image

    @cached_property
    def _parts(self) -> dict[str, Any]:
        """Open the set once for each official split; a set without splits is under ``""``."""
        import torchvision.datasets  # seconds, paid only by who reads one of its sets

        kind = getattr(torchvision.datasets, self.name, None)
        if kind is None:
            raise UserError(f"this torchvision has no {self.name}; a newer one may.")
        takes = set(inspect.signature(kind).parameters)
        if "split" in takes and "split" not in self.options:
            return self._by_name(kind)
        if "train" in takes or self.name == "EMNIST":  # which passes it on to MNIST
            return {"train": self._open(kind, train=True), "test": self._open(kind, train=False)}
        return {"": self._open(kind)}

    def _by_name(self, kind: Any) -> dict[str, Any]:
        parts: dict[str, Any] = {}
        for split, spellings in _SPELLINGS.items():
            for spelling in spellings:
                try:
                    parts[split] = self._open(kind, split=spelling)
                    break
                except ValueError:  # what torchvision says to a split that it doesn't have
                    continue
        if "train" not in parts:
            raise UserError(
                f"torchvision's {self.name} has no split called train. Name one by "
                "`target.dataset.options.split`."
            )
        return parts

    def _open(self, kind: Any, **chosen: Any) -> Any:
        takes = set(inspect.signature(kind).parameters)
        given = {"root": str(self.root), "download": self.download}
        arguments = {key: value for key, value in given.items() if key in takes}
        if self.name in ("EMNIST", "QMNIST"):  # theirs are hidden behind **kwargs
            arguments["download"] = self.download
        try:
            return kind(**arguments, **self.options, **chosen)
        except TypeError as error:
            raise UserError(
                f"torchvision's {self.name}: {error}. Check `target.dataset.options`."
            ) from error
        except (RuntimeError, OSError) as error:
            raise UserError(
                f"torchvision's {self.name} isn't in {self.root} ({str(error).splitlines()[0]}). "
                "Set `target.dataset.download=true` where there is a network, or check "
                "`target.root`."
            ) from error

    @cached_property
    def _index(self) -> Index:
        parts = self._parts
        numbers = np.concatenate([_labels(part, self.name) for part in parts.values()])
        first = next(iter(parts.values()))
        labels, classes = _name(numbers, getattr(first, "classes", None))
        require_classes(classes, f"torchvision's {self.name}")
        splits = tuple(split for split, part in parts.items() for _ in range(len(part)))
        return Index(
            ids=tuple(
                f"{split or 'all'}/{item:06d}"
                for split, part in parts.items()
                for item in range(len(part))
            ),
            labels=labels,
            classes=classes,
            stamp=self._stamp(parts, numbers),
            splits=splits if any(splits) else None,
        )

    def _stamp(self, parts: dict[str, Any], numbers: NDArray[np.int64]) -> str:
        seen = []
        for part in parts.values():
            for item in np.linspace(0, len(part) - 1, min(_PROBES, len(part))).astype(int):
                seen.append(sha256(np.asarray(part[int(item)][0]).tobytes()))
        facts = [self.name, sorted(self.options.items()), sha256(numbers.tobytes()), seen]
        return f"torchvision-{sha256(repr(facts))}"


def _labels(part: Any, name: str) -> NDArray[np.int64]:
    """Find the labels without decoding an image, else by going through the set."""
    for attribute in ("targets", "labels", "_labels", "y"):
        found = getattr(part, attribute, None)
        if found is not None and len(found) == len(part):
            return _whole(found, name)
    for attribute in ("samples", "_samples", "imgs"):
        pairs = getattr(part, attribute, None)
        if pairs is not None and len(pairs) == len(part) and len(pairs[0]) == 2:
            return _whole([pair[1] for pair in pairs], name)
    return _whole([part[item][1] for item in range(len(part))], name)


def _whole(values: Any, name: str) -> NDArray[np.int64]:
    numbers = np.asarray(values)
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
        raise UserError(
            f"torchvision's {name} gives targets that aren't one class an image. "
            "Choose others by `target.dataset.options`."
        )
    return numbers.astype(np.int64)


def _name(numbers: NDArray[np.int64], names: Any) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if names is None or int(numbers.max()) >= len(names) or int(numbers.min()) < 0:
        return encode_labels([str(number) for number in numbers])
    texts = [" / ".join(name) if isinstance(name, tuple) else str(name) for name in names]
    return drop_empty(numbers, texts)
