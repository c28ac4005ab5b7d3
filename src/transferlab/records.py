"""Files that are the truth: records written whole or not at all, hashes of content."""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transferlab.errors import FullDiskError
from transferlab.processes import has_ended, signature
from transferlab.redaction import redacted

FORMAT = 2
"""Raised by hand when a change alters results: it is part of every run's identity."""

Record = dict[str, Any]

FULL = 64 * 1024
"""Bytes below which a disk on which a write failed is full, whatever the writer said of it."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path`` that becomes ``path`` only if the block succeeds.

    The file and its folder are synced before the rename is relied upon, so a reader or a crash
    sees the old content or the new, never half of it. Its mode is the process's usual one, so that
    a group that shares a folder can read it.

    Raises:
        FullDiskError: there was no room for it.
    """
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        mode = os.fstat(handle).st_mode & 0o777  # as the umask leaves it
        os.close(handle)
        yield temporary
        _sync(temporary)
        temporary.chmod(mode)  # some writers put a file of their own in its place
        temporary.replace(path)
        _sync(path.parent)
    except Exception as error:
        _raise_if_full(path, temporary, error)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """Return the name of a hidden file beside ``path``, signed by this process."""
    return path.parent / f".{path.name}.{signature()}.{secrets.token_hex(4)}.tmp"


def clear_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that ended, from a folder and those below it."""
    for path in folder.rglob(".*.tmp"):
        if has_ended(path.name.split(".")[-3]):
            path.unlink(missing_ok=True)


def _raise_if_full(path: Path, temporary: Path, error: Exception) -> None:
    """Raise a FullDiskError where a write failed for want of room; writers put it in many ways."""
    folder = next(up for up in path.absolute().parents if up.is_dir())
    said = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    said |= "No space left on device" in str(error)
    # of other errors the disk is asked; a plain mistake on a full disk is told as the mistake
    wrote = isinstance(error, OSError | RuntimeError)
    if not said and not (wrote and shutil.disk_usage(folder).free < FULL):
        return
    size = temporary.stat().st_size if temporary.exists() else 0
    raise FullDiskError(folder, path.name, size) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text to ``path`` whole or not at all, without the environment's secrets."""
    write_bytes(path, redacted(content).encode())


def write_json(path: Path, record: Any) -> None:
    """Write a record as indented JSON, whole or not at all; NaN becomes null."""
    write_text(path, json.dumps(_plain(record), indent=1, sort_keys=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a record; the error of a damaged one names the file."""
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not a whole JSON record ({error}).") from error


def recorded(directory: Path) -> Record | None:
    """Return the record that a run left, whatever its outcome; None for none, or half of one."""
    try:
        record: Record = read_json(directory / "run.json")
    except (FileNotFoundError, ValueError):
        return None  # cut short by a power failure: the run is made again
    return record


def sha256(content: bytes | str) -> str:
    """Hex SHA-256 of bytes or of UTF-8 text."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_record(record: Any) -> str:
    """Hex SHA-256 of a record in canonical JSON: the order of its keys does not count."""
    return sha256(json.dumps(_plain(record), sort_keys=True, separators=(",", ":")))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _plain(value: Any) -> Any:
    """Reduce numpy scalars, arrays, paths, tuples and NaN to what JSON holds."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)
