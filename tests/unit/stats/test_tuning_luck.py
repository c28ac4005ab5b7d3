"""What choosing a rate on validation does to the error rate of verdicts between equal arms."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from transferlab.stats.verdict import transfer_verdict

ARMS, RATES, VALIDATION = 2, 6, 100
BOUND = 0.08
"""False verdicts that a sound procedure stays below in this many simulated studies."""
STUDIES = 400

World = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Tuning:
    """How two arms of one law choose among the same rates.

    Attributes:
        seeds: tuning runs whose mean validation score decides for all replicates; ``each`` lets
            every replicate decide by a run of its own.
        images: whether every tuning run sees ``fresh`` validation images or all see the ``same``.
    """

    seeds: int | Literal["each"]
    images: Literal["fresh", "same"] = "fresh"


@dataclass(frozen=True)
class Size:
    """Replicates, test items, and how far a step along the grid moves the latent score."""

    n: int
    M: int
    step: float

    @property
    def shifts(self) -> np.ndarray:
        return -self.step * np.abs(np.arange(RATES) - (RATES - 1) / 2)


SMALL = Size(5, 500, 0.2)
LARGE = Size(20, 2000, 0.1)


def world(rng: np.random.Generator, items: int) -> World:
    """How hard items are, and how well each arm and rate copes with each."""
    return 1.2 * rng.standard_normal(items) + 0.9, 0.7 * rng.standard_normal((ARMS, RATES, items))


def correct(rng: np.random.Generator, where: World, arm: int, shifts: np.ndarray) -> np.ndarray:
    """(RATES, items) answers of one run of each rate; the law is the same for both arms."""
    hard, own = where
    runs = 0.06 * rng.standard_normal((RATES, 1))
    noise = 0.5 * rng.standard_normal((RATES, len(hard)))
    return hard + own[arm] + shifts[:, None] + runs + noise > 0


def choices(
    rng: np.random.Generator, arm: int, size: Size, tuning: Tuning, shared: World
) -> np.ndarray:
    """(n,) rate of each replicate."""
    tries = size.n if tuning.seeds == "each" else tuning.seeds
    fresh = tuning.images == "fresh"
    scores = np.stack(
        [
            correct(rng, world(rng, VALIDATION) if fresh else shared, arm, size.shifts).mean(axis=1)
            for _ in range(tries)
        ]
    )
    return scores.argmax(axis=1) if tuning.seeds == "each" else scores.mean(axis=0).argmax()


def false_verdicts(size: Size, tuning: Tuning, studies: int = STUDIES) -> float:
    """Share of studies that find a difference between arms that have none."""
    rng = np.random.default_rng([size.n, size.M])
    wrong = 0
    for _ in range(studies):
        (hard, own), shared = world(rng, size.M), world(rng, VALIDATION)
        sides = []
        for arm in range(ARMS):
            rates = np.broadcast_to(choices(rng, arm, size, tuning, shared), size.n)
            runs = 0.06 * rng.standard_normal((size.n, 1))
            noise = 0.5 * rng.standard_normal((size.n, size.M))
            sides.append(hard + own[arm][rates] + size.shifts[rates][:, None] + runs + noise > 0)
        wrong += transfer_verdict(*sides).verdict in ("positive", "negative")
    return wrong / studies


def test_the_simulation_has_equal_arms() -> None:
    """Nothing to choose, nothing to win by it: one rate's error rate is the verdict's own."""
    assert false_verdicts(Size(5, 500, 0.0), Tuning(1), studies=150) <= BOUND


@pytest.mark.slow
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_replicates_that_tune_for_themselves_keep_the_error_rate(size: Size) -> None:
    assert false_verdicts(size, Tuning("each")) <= BOUND


@pytest.mark.slow
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_rates_tuned_once_and_shared_do_not(size: Size) -> None:
    assert false_verdicts(size, Tuning(1)) >= 0.12


@pytest.mark.slow
def test_three_tuning_seeds_help_and_do_not_suffice() -> None:
    one, three = (false_verdicts(LARGE, Tuning(seeds)) for seeds in (1, 3))
    assert BOUND < three < one


@pytest.mark.slow
def test_replicates_that_share_their_validation_images_share_their_luck() -> None:
    assert false_verdicts(LARGE, Tuning("each", "same")) > 0.1
