"""Where what runs share lies: decoded images, split files, source runs."""

import os
from pathlib import Path

from filelock import FileLock


def cache_folder() -> Path:
    """Return ``$TRANSFERLAB_CACHE``, or ``~/.cache/transferlab``."""
    given = os.environ.get("TRANSFERLAB_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "transferlab"


def shared_lock(path: Path) -> FileLock:
    """Return a lock that everybody can take who may write to the cache.

    The file gets the mode that the umask leaves; filelock alone would let none but its owner in.

    Args:
        path: of the lock's file; its folder must be there.
    """
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    mode = os.fstat(handle).st_mode & 0o777
    os.close(handle)
    return FileLock(path, mode=mode)
