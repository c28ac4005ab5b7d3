import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from transferlab.errors import UserError
from transferlab.study import asking
from transferlab.study.asking import Asker, require_optuna
from transferlab.study.space import Range, Space
from transferlab.study.tuning import Settings

needs_optuna = pytest.mark.skipif(find_spec("optuna") is None, reason="optuna is missing")
SPACE: Space = {
    "lr": Range(1e-4, 1e-1, log=True),
    "depth": Range(1, 9, step=2),
    "share": Range(0.0, 1.0, step=0.25),
    "head": ("linear", None, True),
}
FIRST: Settings = (("lr", 0.01), ("depth", 3), ("share", 0.5), ("head", None))
TRIALS, BATCH = 12, 4


def score(settings: Settings) -> float:
    """Best at a rate of 0.003 and a depth of 5."""
    found = dict(settings)
    return -((math.log10(found["lr"]) + 2.5) ** 2) - abs(found["depth"] - 5)


def asker(journal: Path, sampler: str = "tpe", **changed) -> Asker:
    arguments = {"name": "arm", "space": SPACE, "trials": TRIALS, "seed": 3, "first": FIRST}
    return Asker(journal, sampler=sampler, **(arguments | changed))


def searched(make: Callable[[], Asker], tell: Callable[[Settings], float] = score):
    for start in range(0, TRIALS, BATCH):
        asked = make().ask(start + BATCH)
        for number in range(start, start + BATCH):
            make().tell(number, tell(asked[number]), stopped=number == 5)
    return make().ask(TRIALS)


@needs_optuna
@pytest.mark.parametrize("sampler", ["tpe", "random"])
class TestTrials:
    """What is tried follows from a trial's number and from what was told."""

    def test_trials_lie_in_the_space_and_the_first_is_given(self, sampler, tmp_path: Path) -> None:
        made = asker(tmp_path / "a.journal", sampler)
        found = searched(lambda: made)
        assert found[0] == FIRST
        assert len(found) == TRIALS
        for settings in found:
            tried = dict(settings)
            assert list(tried) == list(SPACE)
            assert 1e-4 <= tried["lr"] <= 1e-1
            assert tried["depth"] in (1, 3, 5, 7, 9)
            assert tried["share"] in (0, 0.25, 0.5, 0.75, 1)
            assert tried["head"] in ("linear", None, True)
        assert len({dict(settings)["lr"] for settings in found}) == TRIALS

    def test_starting_again_at_every_step_changes_nothing(self, sampler, tmp_path: Path) -> None:
        once = asker(tmp_path / "a.journal", sampler)
        whole = searched(lambda: once)
        assert searched(lambda: asker(tmp_path / "b.journal", sampler)) == whole
        assert asker(tmp_path / "b.journal", sampler).ask(3) == whole[:3]

    def test_two_drivers_at_once_share_the_trials(self, sampler, tmp_path: Path) -> None:
        alone = asker(tmp_path / "a.journal", sampler)
        whole = searched(lambda: alone)
        both = [asker(tmp_path / "b.journal", sampler) for _ in range(2)]
        for start in range(0, TRIALS, BATCH):
            asked = [driver.ask(start + BATCH) for driver in both]
            assert asked[0] == asked[1] == whole[: start + BATCH]
            for driver in both:
                for number in range(start, start + BATCH):
                    driver.tell(number, score(whole[number]), stopped=number == 5)

    def test_an_asking_that_was_cut_short_is_made_up_for(self, sampler, tmp_path: Path) -> None:
        once = asker(tmp_path / "a.journal", sampler)
        whole = searched(lambda: once)
        journal = tmp_path / "b.journal"
        asker(journal, sampler).ask(BATCH)
        lines = journal.read_bytes().splitlines(keepends=True)
        for kept in range(1, len(lines)):  # as if it had been killed after any line, or within
            for torn in (b"", lines[kept][:7]):
                journal.write_bytes(b"".join(lines[:kept]) + torn)
                assert searched(lambda: asker(journal, sampler)) == whole

    def test_arms_do_not_mix(self, sampler, tmp_path: Path) -> None:
        journal = tmp_path / "a.journal"
        one, other = asker(journal, sampler), asker(journal, sampler, name="other", seed=4)
        assert one.ask(2)[1] != other.ask(2)[1]
        one.tell(0, 1.0, stopped=False)
        assert len(one.ask(3)) == len(other.ask(3)) == 3


@needs_optuna
def test_tpe_learns_from_what_it_is_told(tmp_path: Path) -> None:
    def rate(name: str, tell) -> float:
        made = asker(tmp_path / name, first=None, trials=TRIALS)
        found = searched(lambda: made, tell)
        return sum(math.log10(dict(settings)["lr"]) for settings in found[BATCH:]) / 8

    low = rate("low", lambda settings: -dict(settings)["lr"])
    high = rate("high", lambda settings: dict(settings)["lr"])
    assert low < high - 0.5


@needs_optuna
def test_a_score_of_minus_infinity_can_be_told(tmp_path: Path) -> None:
    made = asker(tmp_path / "a.journal")
    assert len(searched(lambda: made, lambda _: -math.inf)) == TRIALS


@pytest.mark.parametrize("found", [None, "2.10.1", "3.6.0"])
def test_what_optuna_is_missing_is_said(found, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(_: str) -> str:
        if found is None:
            raise asking.PackageNotFoundError
        return str(found)

    monkeypatch.setattr(asking, "version", version)
    with pytest.raises(UserError, match=r"transferlab\[optuna\]") as told:
        require_optuna()
    assert (found or "none") in str(told.value)
