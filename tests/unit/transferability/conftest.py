"""The cases that reference values are known for, from TLlib run unmodified."""

from dataclasses import dataclass

import numpy as np
import pytest


@dataclass(frozen=True)
class Case:
    """Features, labels, and the probabilities and classes of a made-up source."""

    x: np.ndarray
    y: np.ndarray
    probs: np.ndarray

    @property
    def z(self) -> np.ndarray:
        return self.probs.argmax(axis=1)

    def taken(self, rows: np.ndarray) -> "Case":
        return Case(self.x[rows], self.y[rows], self.probs[rows])


def _first(y: np.ndarray, counts: list[int]) -> np.ndarray:
    return np.concatenate([np.flatnonzero(y == k)[:n] for k, n in enumerate(counts)])


@pytest.fixture(scope="session")
def cases() -> dict[str, Case]:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(10), 50)
    mu = rng.normal(size=(10, 64))
    sd = np.linspace(0.5, 2, 64)
    noise = rng.normal(size=(500, 64))
    x = mu[y] + noise * sd
    weights = rng.normal(size=(64, 20)) / 8
    logits = 1.5 * x @ weights
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    base = Case(x, y, probs)
    return {
        "base": base,
        "shuffled": Case(x, y[rng.permutation(500)], probs),
        "few_shot": base.taken(_first(y, [4] * 10)),
        "imbalanced": base.taken(_first(y, [50, 40, 30, 25, 20, 15, 10, 8, 5, 3])),
        "binary": base.taken(np.flatnonzero(y < 2)),
        "offset": Case(x + 5, y, probs),
        "hetero": Case(0.3 * mu[y] + noise * sd * (0.4 + 0.2 * y[:, None]), y, probs),
    }


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)
