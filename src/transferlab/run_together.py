"""Several runs in one fit, where all of them train a head on the same features."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress

from lightning.pytorch.loggers import Logger

from transferlab import probes
from transferlab.fitting import Fit
from transferlab.forward_graph import NoCutError
from transferlab.lease import held
from transferlab.module import DivergedError
from transferlab.planning import Plan
from transferlab.records import Record
from transferlab.room import room_named
from transferlab.run import LEASE, Stands, conclude, failure, prepare, starting_weights, trained
from transferlab.run_record import header, measure

MOST = 64
"""Runs of one fit: each has a model of its own until it is recorded."""


def batches_of(plans: Sequence[Plan]) -> Iterator[list[Plan]]:
    """Yield runs that can be made in one fit, two or more at a time.

    Trackers want a process of its own for each run.
    """
    alike: dict[str, list[Plan]] = {}
    for plan in plans:
        if probes.eligible(plan) and not plan.cfg.tracker:
            alike.setdefault(probes.together(plan), []).append(plan)
    for same in alike.values():
        parts = [same[start : start + MOST] for start in range(0, len(same), MOST)]
        yield from (part for part in parts if len(part) > 1)


def attempt_together(plans: Sequence[Plan], stands: Stands) -> None:
    """Make those runs in one fit that nobody has made or is at work on.

    What can't be made in this way is left alone: whoever makes runs one by one finds out why.

    Args:
        plans: runs of one of :func:`batches_of`.
        stands: which records stay as they are.
    """
    with ExitStack() as stack:
        mine = []
        for plan in plans:
            plan.directory.mkdir(parents=True, exist_ok=True)
            if not stack.enter_context(held(plan.directory / LEASE, wait=False)):
                continue
            known = stands(plan.directory)
            if known is None or not trained(plan, known):
                prepare(plan, known)
                mine.append(plan)
        if len(mine) > 1:
            with suppress(NoCutError):
                _make(mine)


def _make(plans: Sequence[Plan]) -> None:
    started = time.perf_counter()
    records = [header(plan) for plan in plans]
    weights = starting_weights(plans[0].cfg)
    none: list[list[Logger]] = [[] for _ in plans]
    with room_named(plans[0].cfg, plans[0].directory):
        fits = probes.fit(plans, weights, [plan.directory for plan in plans], none)
        share = (time.perf_counter() - started) / len(plans)
        for plan, record, found in zip(plans, records, fits, strict=True):
            _record(plan, record, found, share)


def _record(plan: Plan, record: Record, found: Fit | DivergedError, share: float) -> None:
    began = time.perf_counter()
    try:
        if isinstance(found, DivergedError):
            raise found
        record |= measure(plan, found)
    except DivergedError as error:  # its own outcome, not that of its company
        record |= failure("diverged", error)
    conclude(plan, record, share + time.perf_counter() - began)
