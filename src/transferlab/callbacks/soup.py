"""Greedy soup: the average of finished runs' weights, as long as validation does not fall."""

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor

from transferlab.backbones.weights import load_weights, weights_sha256
from transferlab.callbacks.base import StrategyCallback
from transferlab.callbacks.scoring import history_of, validation_score
from transferlab.errors import UserError
from transferlab.records import Record, read_json, sha256_record

State = dict[str, Tensor]
ALIKE = {
    "source": "source", "backbone": "backbone", "head": "head", "seed": "seed",
    "target": "target", "split": "target split", "subset": "target.shots and target.fraction",
}  # fmt: skip
"""What ingredients share with the soup, by the names of a run's identity, and in words.

Source, backbone, head and seed fix the starting weights; averages across starting points are no
better than chance. The split is what makes their validation scores comparable.
"""


@dataclass(frozen=True)
class Ingredient:
    """A finished run and the hash of its weights."""

    directory: Path
    record: Record
    sha256: str

    def score(self, metric: str) -> float:
        """Return its validation score."""
        return float(self.record["metrics"]["validation"][metric])


class GreedySoup(StrategyCallback):
    """Average the weights of finished runs that started from the same point; nothing trains.

    A run of zero steps whose sources are runs. They are sorted by their validation score, and each
    is kept if the average with it scores no lower on validation than the average before it.
    Floating buffers (norm statistics) are averaged too; integer ones are the best run's.

    Source: Wortsman et al., ICML 2022 (arXiv:2203.05482), recipe 1.

    Args:
        runs: directories of runs that kept their weights, or patterns such as ``outputs/x/runs/*``,
            of which only finished runs that trained are taken.
    """

    chooses = True

    def __init__(self, runs: Sequence[str]) -> None:
        self.runs = [str(run) for run in ([runs] if isinstance(runs, str) else runs)]
        if not self.runs:
            raise UserError("soup.runs is empty: give directories of runs, or a pattern for them.")
        self._trials: list[dict[str, Any]] = []

    def trials(self) -> list[dict[str, Any]]:
        """Return one entry a run: its id and score, the score with it in, whether it was kept."""
        return self._trials

    def steps(self, budget: int) -> int:
        """Return 0, whatever the budget is."""
        del budget
        return 0

    def identity(self, run: Mapping[str, Any]) -> Any:
        """Return the ingredients' run ids and weights, in the place of their paths.

        Raises:
            UserError: a run that does not belong in this soup; names the first difference.
        """
        ingredients = self.ingredients()
        for ingredient in ingredients:
            _require_alike(ingredient, run)
        return {"greedy_soup": [[i.record["run_id"], i.sha256] for i in ingredients]}

    def ingredients(self) -> list[Ingredient]:
        """Return the runs with their hashes, ordered by run id, each once.

        Raises:
            UserError: fewer than two, or one that is not finished or kept no weights.
        """
        found = {i.record["run_id"]: i for entry in self.runs for i in _matching(entry)}
        if len(found) < 2:
            raise UserError(
                f"soup.runs={self.runs} holds {len(found)} finished runs with weights; a soup "
                "takes two or more. Give their directories, or a pattern such as outputs/x/runs/*."
            )
        return [found[run_id] for run_id in sorted(found)]

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Make the soup, before the one validation that a run of zero steps has."""
        history = history_of(trainer)
        assert history is not None, "a soup is made in a run's own fit"
        metric = history.metric
        ranked = sorted(self.ingredients(), key=lambda i: (-i.score(metric), i.record["run_id"]))
        states = (_weights(i, pl_module.model.state_dict()) for i in ranked)
        soup, kept, scores = greedy_soup(
            states, lambda state: validation_score(trainer, pl_module, state)
        )
        pl_module.model.load_state_dict(soup)
        self._trials = [
            {
                "run_id": i.record["run_id"],
                "own_score": i.score(metric),
                "score": score,
                "chosen": keep,
                "fit_seconds": (i.record.get("cost") or {}).get("fit_seconds"),
            }
            for i, score, keep in zip(ranked, scores, kept, strict=True)
        ]


def greedy_soup(
    states: Any, score: Callable[[State], float]
) -> tuple[State, list[bool], list[float]]:
    """Average weights as long as the score does not fall.

    Args:
        states: an iterable of weights and buffers, the best first; read one after the other.
        score: of an average, higher is better.

    Returns:
        the soup, which states are in it, and the score that each had with those before it.

    Raises:
        ValueError: no states.
    """
    soup: State = {}
    sums: State = {}
    kept: list[bool] = []
    scores: list[float] = []
    best = float("-inf")
    for state in states:
        more = {
            name: sums[name] + value.double() if sums else value.double()
            for name, value in state.items()
            if value.is_floating_point()
        }
        count = sum(kept) + 1
        candidate = {
            name: (more[name] / count).to(value.dtype) if name in more else soup.get(name, value)
            for name, value in state.items()
        }
        scores.append(score(candidate))
        kept.append(not soup or scores[-1] >= best)
        if kept[-1]:
            soup, sums, best = candidate, more, scores[-1]
    if not soup:
        raise ValueError("no states: a soup takes at least one")
    return soup, kept, scores


def _matching(entry: str) -> list[Ingredient]:
    """Return the run in a directory, or those that a pattern matches."""
    path = Path(entry).expanduser()
    if not glob.has_magic(entry):
        return [_ingredient(path, _record(path))]
    found = []
    path = path.absolute()
    for match in sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor)))):
        record = _record(match) if (match / "run.json").is_file() else {}
        if record.get("status") == "done" and record.get("budget_steps") != 0:
            found.append(_ingredient(match, record))
    return found


def _record(directory: Path) -> Record:
    path = directory / "run.json"
    if not path.is_file():
        raise UserError(f"soup.runs: {directory} holds no run.json. Give a finished run's folder.")
    try:
        record: Record = read_json(path)
    except ValueError as error:
        raise UserError(f"soup.runs: {path} is damaged. Make that run again.") from error
    return record


def _ingredient(directory: Path, record: Record) -> Ingredient:
    if record.get("status") != "done" or record.get("budget_steps") == 0:
        what = "trained nothing" if record.get("budget_steps") == 0 else record.get("status")
        raise UserError(f"soup.runs: run {directory} {what}. Give runs that trained and are done.")
    if "identity" not in record:
        raise UserError(
            f"soup.runs: {directory}/run.json does not say what defines the run; an earlier "
            "version wrote it. Make that run again."
        )
    files = sorted(directory.glob("checkpoints/*.safetensors"))
    if not files:
        raise UserError(
            f"soup.runs: run {directory} kept no weights. Make it again with checkpoint.keep=last."
        )
    return Ingredient(directory, record, _sha256(directory, files[-1].stat().st_mtime_ns))


@lru_cache(maxsize=256)
def _sha256(directory: Path, changed: int) -> str:
    """Return the hash of a run's weights; a study plans a run several times."""
    del changed
    return weights_sha256(load_weights(directory))


def _require_alike(ingredient: Ingredient, run: Mapping[str, Any]) -> None:
    other = ingredient.record["identity"]
    for key, words in ALIKE.items():
        if sha256_record(other.get(key)) != sha256_record(run.get(key)):
            raise UserError(
                f"soup.runs: run {ingredient.directory} has {words} {_brief(other.get(key))}, the "
                f"soup {_brief(run.get(key))}. Runs can be averaged that started from the same "
                f"weights and were validated on the same images: give the soup's {words}, or "
                "leave that run out."
            )


def _weights(ingredient: Ingredient, wanted: Mapping[str, Tensor]) -> State:
    state = load_weights(ingredient.directory)
    unlike = [
        name
        for name in sorted(wanted.keys() | state.keys())
        if name not in wanted or name not in state or wanted[name].shape != state[name].shape
    ]
    if unlike:
        raise UserError(
            f"soup.runs: {unlike[0]} in run {ingredient.directory} is not as in the soup's model "
            f"({len(unlike)} tensors differ). Give runs whose strategies leave the architecture "
            "alone."
        )
    return state


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
