"""Where what runs share lies: decoded images, split files, source runs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$TRANSFERLAB_CACHE``, or ``~/.cache/transferlab``."""
    given = os.environ.get("TRANSFERLAB_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "transferlab"
