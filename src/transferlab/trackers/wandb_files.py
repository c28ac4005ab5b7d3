"""What wandb's own files hold: the only ones who know what of a killed process is on disk.

wandb writes from a process of its own and some seconds late, so that neither the run nor a note
of ours can know. A file is a head of 7 bytes, then LevelDB's log format with a protobuf ``Record``
in each entry.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transferlab.trackers.base import NOTHING

MAGIC, HEAD, BLOCK = b":W&B", 7, 32768
ENTRY = struct.Struct("<IHB")  # checksum, length, whether whole, first, middle or last
FULL, FIRST, LAST = 1, 2, 4


def highest_step(folder: Path, run_id: str) -> int:
    """Return the highest step of a run in wandb's directories under ``folder``, else ``NOTHING``.

    Raises:
        ValueError: a file is not in the format that is known.
    """
    files = sorted(folder.glob(f"*run-*-{run_id}/run-{run_id}.wandb"))
    return max((row["_step"] for path in files for row in rows(path)), default=NOTHING)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file's history, each with its ``_step``; a torn end is left out.

    Raises:
        ValueError: the file is not in the format that is known.
    """
    import json

    from wandb.proto.wandb_internal_pb2 import Record

    for entry in _entries(path):
        record = Record.FromString(entry)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            row = {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}
            yield {"_step": record.history.step.num} | row


def _entries(path: Path) -> Iterator[bytes]:
    content = path.read_bytes()
    if content and not content.startswith(MAGIC):
        raise ValueError(f"{path} does not begin like a file of wandb's")
    place, entry = HEAD, b""
    while place + ENTRY.size <= len(content):
        left = BLOCK - place % BLOCK
        if left < ENTRY.size:
            place += left
            continue
        _, length, kind = ENTRY.unpack_from(content, place)
        place += ENTRY.size
        part = content[place : place + length]
        if kind == 0 or len(part) < length:
            return  # cut short when the process was killed
        place += length
        entry = part if kind in (FULL, FIRST) else entry + part
        if kind in (FULL, LAST):
            yield entry
