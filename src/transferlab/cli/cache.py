"""``transferlab cache``: what runs share on this machine, and room for more."""

from transferlab.analysis.formats import count, size
from transferlab.cache import PARTS, cache_folder, clear, holdings
from transferlab.errors import UserError, nearest

HELP = """usage: transferlab cache
       transferlab cache clear [PART ...]

Show what the cache of this machine holds, or remove parts of it: without names all that is made
again where it is missing, which is everything but the source runs. The folder is
$TRANSFERLAB_CACHE, or ~/.cache/transferlab.

parts:
""" + "".join(f"  {part:<16} {what}\n" for part, what in PARTS.items())


def main(argv: list[str]) -> int:
    """Run ``transferlab cache``; returns the exit code."""
    if "-h" in argv or "--help" in argv:
        print(HELP, end="")
        return 0
    folder = cache_folder()
    if not argv:
        print(f"{folder}:")
        for holding in holdings(folder):
            files = count(holding.files, "file")
            what = PARTS[holding.part]
            print(f"  {holding.part:<16} {size(holding.bytes):>8}  {files:>12}  {what}")
        return 0
    if argv[0] != "clear":
        raise UserError(f"cache {argv[0]!r} is unknown. Try: transferlab cache clear features")
    parts = argv[1:] or [part for part in PARTS if part != "runs"]
    for part in parts:
        if part not in PARTS:
            raise UserError(f"no part {part!r} of the cache ({nearest(part, PARTS)}).")
    freed = clear(folder, parts)
    print(f"removed {', '.join(parts)}: {size(freed)}")
    return 0
