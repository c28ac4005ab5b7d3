"""Trials of a search, asked of Optuna and told back to it through a journal on disk.

What a trial tries depends on its number and on what was told before it, never on who asks or how
often: a study that was interrupted, or is driven twice, has the trials of one that was not.
"""

import logging
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock

from transferlab.errors import UserError
from transferlab.randomness import derive_seed
from transferlab.study.space import Range, Space
from transferlab.study.tuning import Settings

STARTUP = 10
"""Trials at the most that TPE draws at random first; a third of all where those are fewer."""


def require_optuna() -> None:
    """Raise a UserError unless Optuna 4 or later is there."""
    try:
        found = version("optuna")
    except PackageNotFoundError:
        found = "none"
    if found == "none" or int(found.partition(".")[0]) < 4:
        raise UserError(
            f"study.tune.search needs optuna 4 or later (found: {found}): "
            "pip install 'transferlab[optuna]', or give study.tune.grid."
        )


class Asker:
    """One arm's trials.

    Args:
        journal: the file that holds the trials of all arms.
        name: of this arm's trials in it; it changes with all that defines them.
        space: what may be tried.
        sampler: ``tpe`` or ``random``.
        trials: how many there will be.
        seed: of the sampler.
        first: what the first trial tries.
    """

    def __init__(
        self, journal: Path, name: str, space: Space, sampler: str, trials: int, seed: int,
        first: Settings | None = None,
    ) -> None:  # fmt: skip
        import optuna

        optuna.logging.set_verbosity(logging.WARNING)
        self.space, self.sampler, self.trials, self.seed = space, sampler, trials, seed
        self.first = dict(first) if first else None
        journal.parent.mkdir(parents=True, exist_ok=True)
        # the kernel takes it from a driver that was killed; Optuna's own would have to grow stale
        self._lock = FileLock(journal.with_name(f".{journal.name}.lock"))
        with self._lock:
            _mend(journal)
            backend = optuna.storages.journal.JournalFileBackend(str(journal), _Held(self._lock))
            storage = optuna.storages.JournalStorage(backend)
            known = name in optuna.get_all_study_names(storage)  # else the journal would grow
            self._study = (
                optuna.load_study(study_name=name, storage=storage)
                if known
                else optuna.create_study(study_name=name, storage=storage, direction="maximize")
            )

    def ask(self, count: int) -> list[Settings]:
        """Return what the first ``count`` trials try; those that nobody asked for yet are asked."""
        with self._lock:
            while len(self._asked()) < count:
                self._ask(len(self._asked()))
            return [
                tuple((key, trial.params[key]) for key in self.space)
                for trial in self._asked()[:count]
            ]

    def tell(self, number: int, value: float, stopped: bool) -> None:
        """Tell a trial's score, once; one that was stopped counts below all that were not."""
        from optuna.trial import TrialState

        with self._lock:
            trial = self._asked()[number]
            if trial.state.is_finished():
                return
            if stopped:
                self._study.tell(trial.number, state=TrialState.PRUNED)
            else:
                self._study.tell(trial.number, value)

    def _ask(self, number: int) -> None:
        from optuna.trial import TrialState

        self._study.sampler = self._sampler(number)
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if number == 0 and self.first and not waiting:
            self._study.enqueue_trial(self.first)
        self._study.ask({key: _distribution(kind) for key, kind in self.space.items()})

    def _sampler(self, number: int) -> Any:
        """Return a sampler of one trial: a generator that lived on would not survive a restart."""
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import RandomSampler, TPESampler

        seed = derive_seed(self.seed, "trial", number) % 2**32
        if self.sampler == "random":
            return RandomSampler(seed=seed)
        startup = min(STARTUP, max(self.trials // 3, 1))
        # trials of one batch are asked before any of them is told: they must not be all alike
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)

    def _asked(self) -> list[Any]:
        """Return the trials in order; one whose asking was cut short is asked again."""
        from optuna.trial import TrialState

        found = []
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state in (TrialState.WAITING, TrialState.FAIL):
                continue
            if trial.params.keys() != self.space.keys():
                self._study.tell(trial.number, state=TrialState.FAIL)
                continue
            found.append(trial)
        return found


class _Held:
    """A lock as Optuna's journal asks for it; taken again by whoever has it."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def acquire(self) -> bool:
        """Take it."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Give it back, as often as it was taken."""
        self._lock.release()


def _distribution(kind: Range | tuple[Any, ...]) -> Any:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(kind, tuple):
        return CategoricalDistribution(kind)
    if kind.whole:
        return IntDistribution(int(kind.low), int(kind.high), log=kind.log, step=kind.step or 1)
    return FloatDistribution(kind.low, kind.high, log=kind.log, step=kind.step)


def _mend(journal: Path) -> None:
    """Cut off the line that a writer which was killed left unfinished: the next would join it."""
    if not journal.is_file():
        return
    with journal.open("rb+") as stream:
        content = stream.read()
        stream.truncate(content.rfind(b"\n") + 1)
