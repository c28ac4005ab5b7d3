"""What was said before training beside what came of it.

Scores rank sources of one cell; alarms warn of one. How well either did is counted here, over the
comparisons that a study finished.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu, spearmanr, weightedtau

from transferlab.analysis.facts import Table
from transferlab.analysis.formats import NOTHING, count, percent, points
from transferlab.analysis.terms import WORDS
from transferlab.records import Record

ENOUGH_SOURCES = 3
"""Sources of one cell and strategy from which a correlation says anything."""
ENOUGH_COMPARISONS = 20
"""Finished comparisons from which alarms are counted against verdicts."""
SHOWN = {
    "neighbours": "nearest neighbours", "logme": "LogME", "regularized_h_score": "H-score, reg.",
    "leep": "LEEP", "n_leep": "N-LEEP",
}  # fmt: skip
"""Scores beside every gain; all of them are in the records."""
ALARMS = ("w1", "w2")


@dataclass(frozen=True)
class Meeting:
    """A prediction and the verdict on one strategy from the same source in the same cell."""

    predicted: Record
    verdict: Record

    @property
    def gain(self) -> float | None:
        """The realised gain, as a share; None where it was not measured."""
        found = self.verdict.get("delta")
        return None if found is None else float(found)

    @property
    def finished(self) -> bool:
        """Whether the comparison came to a verdict, inconclusive ones included."""
        return self.gain is not None and self.verdict.get("verdict") != "not_assessable"


def meetings(predicted: Sequence[Record], verdicts: Sequence[Record]) -> list[Meeting]:
    """Pair verdicts with the prediction of their source in their cell; others are left out.

    Where sources of one name differ in their weights, ``source_ids`` of the verdict tells which.
    """
    found = []
    for verdict in verdicts:
        place = (str(verdict["cell"]), str(verdict["source"]))
        alike = [one for one in predicted if (str(one["cell"]), str(one["source"])) == place]
        ids = verdict.get("source_ids") or []
        same = [one for one in alike if one.get("source_id") in ids]
        if alike:
            found.append(Meeting((same or alike)[0], verdict))
    return found


def predicted_table(predicted: Sequence[Record], verdicts: Sequence[Record]) -> Table:
    """Scores and alarms of every source beside the gains that its strategies had.

    Args:
        predicted: records of ``scouting.arms.predict_arms``, with their cells.
        verdicts: records with ``cell``, ``source``, ``strategy``, ``delta`` and ``verdict``.

    Returns:
        a row a comparison; no rows where nothing was predicted. The note says how well the alarms
        did, or why that is not said yet.
    """
    pairs = meetings(predicted, verdicts)
    several = len({str(pair.verdict["cell"]) for pair in pairs}) > 1
    rows = []
    for pair in pairs:
        words = [str(pair.verdict["source"]), str(pair.verdict["strategy"])]
        if several:
            words.insert(0, str(pair.verdict["cell"]))
        fired = [name for name in ALARMS if (pair.predicted["alarms"][name] or {}).get("fires")]
        scores = [_shown(pair.predicted, name) for name in SHOWN]
        outcome = WORDS.get(str(pair.verdict["verdict"]), str(pair.verdict["verdict"]))
        rows.append([*words, outcome, *scores, ", ".join(fired) or "none", points(pair.gain)])
    head = [*(["cell"] if several else []), "source", "strategy", "verdict", *SHOWN.values()]
    note = alarm_sentence(pairs) if pairs else ""
    return Table([*head, "alarms", "gain"], rows, words=4 if several else 3, note=note)


def agreement_table(predicted: Sequence[Record], verdicts: Sequence[Record]) -> Table:
    """How every score's order of the sources agrees with that of their gains.

    Gains are compared within a cell and a strategy, where all sources face the same scratch arm;
    correlations are averaged over these groups. The weighted tau counts the top ranks most.

    Returns:
        a row a score; no rows where no group has three sources or more.
    """
    groups: dict[tuple[str, str], list[Meeting]] = {}
    for pair in meetings(predicted, verdicts):
        if pair.finished:
            key = (str(pair.verdict["cell"]), str(pair.verdict["strategy"]))
            groups.setdefault(key, []).append(pair)
    rows = []
    for name in _score_names(predicted):
        found = [_correlations(group, name) for group in groups.values()]
        told = [pair for pair in found if pair is not None]
        if told:
            spearman, tau = (math.fsum(values) / len(told) for values in zip(*told, strict=True))
            rows.append([SHOWN.get(name, name), f"{spearman:+.2f}", f"{tau:+.2f}", str(len(told))])
    rows.sort(key=lambda row: -float(row[1]))
    note = "Few sources make any of these large by chance." if rows else ""
    return Table(["score", "Spearman's ρ", "weighted τ", "groups"], rows, note=note)


def alarm_sentence(pairs: Sequence[Meeting]) -> str:
    """Say how often alarms met negative verdicts; their AUROC from 20 comparisons on."""
    done = [pair for pair in pairs if pair.finished]
    if len(done) < ENOUGH_COMPARISONS:
        return (
            f"{count(len(done), 'finished comparison')}: alarms are counted against verdicts from "
            f"{ENOUGH_COMPARISONS} on."
        )
    return " ".join(_counted(name, done) for name in ALARMS)


def alarm_auroc(pairs: Sequence[Meeting], name: str) -> float | None:
    """Chance that an alarm warns more of a comparison that ended negative than of another.

    Args:
        pairs: finished comparisons.
        name: ``w1`` or ``w2``; the lower its value, the stronger the warning.

    Returns:
        in [0, 1], 0.5 for an alarm that knows nothing; None where all or none are negative.
    """
    values = [(pair.predicted["alarms"][name] or {}).get("value") for pair in pairs]
    known = [(v, _negative(p)) for v, p in zip(values, pairs, strict=True) if v is not None]
    bad = [-float(value) for value, negative in known if negative]
    other = [-float(value) for value, negative in known if not negative]
    if not bad or not other:
        return None
    return float(mannwhitneyu(bad, other).statistic / (len(bad) * len(other)))


def _counted(name: str, done: Sequence[Meeting]) -> str:
    fired = [p for p in done if (p.predicted["alarms"][name] or {}).get("fires")]
    silent = [p for p in done if (p.predicted["alarms"][name] or {}).get("fires") is False]
    area = alarm_auroc(done, name)
    told = (
        f"{name}: of {count(len(fired), 'comparison')} that it warned of, "
        f"{sum(map(_negative, fired))} ended negative; of {len(silent)} others, "
        f"{sum(map(_negative, silent))}"
    )
    return f"{told}; AUROC {area:.2f}." if area is not None else f"{told}."


def _negative(pair: Meeting) -> bool:
    return pair.verdict.get("verdict") == "negative"


def _score_names(predicted: Sequence[Record]) -> list[str]:
    names = [name for record in predicted for name in record["scores"]]
    return list(dict.fromkeys(["neighbours", *names]))


def _value(record: Record, name: str) -> float | None:
    if name == "neighbours":
        found = record["neighbours"]["source"]
    else:
        found = (record["scores"].get(name) or {}).get("value")
    return None if found is None else float(found)


def _shown(record: Record, name: str) -> str:
    value = _value(record, name)
    form: Callable[[float], str] = percent if name == "neighbours" else "{:.3g}".format
    return NOTHING if value is None else form(value)


def _correlations(group: Sequence[Meeting], name: str) -> tuple[float, float] | None:
    """Return Spearman's and the weighted correlation of a score with the gains of one group."""
    known = [(_value(pair.predicted, name), pair.gain) for pair in group]
    both = [(value, gain) for value, gain in known if value is not None and gain is not None]
    if len(both) < ENOUGH_SOURCES:
        return None
    scores, gains = (np.array(column) for column in zip(*both, strict=True))
    if np.ptp(scores) == 0 or np.ptp(gains) == 0:
        return None  # no order to agree with
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        spearman, tau = spearmanr(scores, gains).statistic, weightedtau(scores, gains).statistic
    finite = math.isfinite(spearman) and math.isfinite(tau)
    return (float(spearman), float(tau)) if finite else None
