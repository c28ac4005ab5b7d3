"""A folder of classes on disk, with or without train, validation and test folders above them."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from transferlab.datasets.base import Index
from transferlab.datasets.naming import SPLIT_NAMES, encode_labels, require_classes
from transferlab.datasets.opening import open_image
from transferlab.datasets.roots import existing
from transferlab.errors import UserError
from transferlab.records import sha256

_COMMON = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff")
_RARE = (".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif")
EXTENSIONS = frozenset(_COMMON + _RARE)
"""Files with these endings are images, in capitals too."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class _File:
    name: str  # below the root, with forward slashes
    label: str
    split: str
    stamp: str  # size and time of the last change


class ImageFolder:
    """``root/<class>/...`` or ``root/{train,val,test}/<class>/...``.

    Classes are the sorted names of the folders; whole numbers sort by value. Images may lie in
    sub-folders of their class. Hidden files are passed over; other files that are no images are
    counted by ending in ``ignored``.

    Args:
        root: the folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()
        self.ignored: Counter[str] = Counter()

    def index(self) -> Index:
        """List the images; see :class:`transferlab.datasets.base.Dataset`."""
        return self._index

    def image(self, position: int) -> Image.Image:
        """Open one image."""
        return open_image(self.root / self._index.ids[position])

    @cached_property
    def _index(self) -> Index:
        root = existing(self.root, "target.root")
        files = sorted(self._files(root))
        if self.ignored:
            endings = ", ".join(f"{count} {end}" for end, count in self.ignored.most_common(5))
            _log.warning("%s: files that are no images were left out: %s", root, endings)
        if not files:
            raise UserError(self._empty(root))
        labels, classes = encode_labels([file.label for file in files])
        require_classes(classes, f"{root}{_deeper(root)}")
        splits = tuple(file.split for file in files)
        lines = "\n".join(f"{file.name}\t{file.stamp}" for file in files)
        return Index(
            ids=tuple(file.name for file in files),
            labels=labels,
            classes=classes,
            stamp=f"folder-{sha256(lines)}",
            splits=splits if any(splits) else None,
        )

    def _files(self, root: Path) -> Iterator[_File]:
        folders = _folders(root)
        if not _are_splits(root, folders):
            yield from self._classes(root, folders, "")
            return
        for folder in folders:
            yield from self._classes(root, _folders(folder), SPLIT_NAMES[folder.name.lower()])

    def _classes(self, root: Path, folders: list[Path], split: str) -> Iterator[_File]:
        for folder in folders:
            count = 0
            for path, entry in _walk(folder, self.ignored):
                count += 1
                stamp = f"{entry.st_size}-{entry.st_mtime_ns}"
                yield _File(path.relative_to(root).as_posix(), folder.name, split, stamp)
            if not count and split in ("", "train"):
                raise UserError(
                    f"the class folder {folder} holds no image (endings known: "
                    f"{' '.join(sorted(EXTENSIONS))}). Fill it or remove it."
                )

    def _empty(self, root: Path) -> str:
        loose = sum(path.suffix.lower() in EXTENSIONS for path in root.iterdir())
        if loose:
            return (
                f"{root} holds {loose} images and no class folders. Put each class into a folder "
                "of its own, or use `target=table` with a file of labels."
            )
        return f"{root} is empty: no class folder with images in it. Check `target.root`."


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")


def _are_splits(root: Path, folders: list[Path]) -> bool:
    known = [folder.name for folder in folders if folder.name.lower() in SPLIT_NAMES]
    others = [folder.name for folder in folders if folder.name not in known]
    flat = [name for name in known if not _folders(root / name)]
    if flat and len(known) > 1 and not others:
        raise UserError(
            f"{root / flat[0]} is called after a split and holds no class folders. Put each class "
            "into a folder of its own there, move the folder elsewhere, or use `target=table` "
            "with a file of labels."
        )
    if flat or not known or (len(known) == 1 and others):
        return False  # a single "test" among other names is a class like them
    if others:
        raise UserError(
            f"{root} holds the splits {', '.join(known)} and also {', '.join(others[:3])}. "
            "Move what is no split elsewhere."
        )
    return True


def _deeper(root: Path) -> str:
    """Hint at the folder inside, when an archive was unpacked into one of its own."""
    folders = _folders(root)
    inside = _folders(folders[0]) if len(folders) == 1 else []
    return f" (did you mean `target.root={folders[0]}`?)" if len(inside) > 1 else ""


def _walk(folder: Path, ignored: Counter[str]) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the images at any depth; linked folders are followed, once each."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if name.startswith(".") or name in ("Thumbs.db", "desktop.ini"):
                continue
            path = Path(place, name)
            if path.suffix.lower() in EXTENSIONS:
                yield path, path.stat()
            else:
                ignored[path.suffix.lower() or "(no ending)"] += 1
