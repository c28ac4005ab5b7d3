"""How much disk a study takes: said before it runs, and refused where there is less."""

from collections.abc import Iterable
from pathlib import Path

from transferlab.cache import cache_folder
from transferlab.planning import plan_run
from transferlab.room import kept_bytes, passing_bytes, require_room
from transferlab.study.composition import point
from transferlab.study.conduct import Study
from transferlab.study.state import CellState
from transferlab.study.tuning import points


def expected_room(study: Study) -> dict[Path, int]:
    """Return the bytes that a study will still add, by folder: the study's and the cache.

    Runs that lie there already are counted off, whichever they are.
    """
    total, passing = 0, 0
    for cell in study.cells:
        for state in cell.arms:
            first, *others = study.declaration.seeds
            plan = plan_run(point(state.cfg, first, "replicate", {}))
            keep = state.cfg.checkpoint.keep
            total += kept_bytes(plan, keep or state.cfg.checkpoint.select)
            total += len(others) * kept_bytes(plan, keep or "none")
            total += _trials(study, cell) * kept_bytes(plan, "none")
            passing = max(passing, passing_bytes(plan))
    sources = study.source_plans()
    cached = sum(kept_bytes(plan, "last") for plan in sources)
    passing = max([passing, *map(passing_bytes, sources)])
    return {
        study.folder: max(total - _there((study.folder / "runs").glob("*")), 0)
        + passing * study.where.workers,
        cache_folder() / "runs": max(cached - _there(p.directory for p in sources), 0),
    }


def room_text(study: Study) -> str:
    """Say what a study will still add."""
    return _told(study, expected_room(study))


def require_study_room(study: Study) -> str:
    """Refuse a study that will not fit; returns what :func:`room_text` says of it.

    Raises:
        UserError: names the disk, what is needed and what is free.
    """
    room = expected_room(study)
    require_room(room, f"the study {study.cfg.name}")
    return _told(study, room)


def _told(study: Study, room: dict[Path, int]) -> str:
    own, cached = room.values()
    more = f" and {cached / 1e6:,.1f} MB of source runs in the cache" if cached else ""
    return f"about {own / 1e6:,.1f} MB in {study.folder}{more}"


def _trials(study: Study, cell: CellState) -> int:
    return len(points(cell.grid)) * study.tuning_seeds() if study.declaration.tuned else 0


def _there(directories: Iterable[Path]) -> int:
    """Return the bytes below the directories of runs that have a record."""
    return sum(
        file.stat().st_size
        for directory in directories
        if (directory / "run.json").is_file()
        for file in directory.rglob("*")
        if file.is_file()
    )
