"""What to try first: the usual decision table, read with what was measured.

The table (small or large target, similar or different source) is folklore of transfer learning,
as in Stanford's CS231n notes; Yosinski et al., NeurIPS 2014; Kornblith et al., CVPR 2019; Kumar et
al., ICLR 2022 (probing first); Lee et al., ICLR 2023 (which layers to tune under which shift).
"""

from collections.abc import Sequence
from dataclasses import dataclass

LARGE = 100
"""Items of the smallest class from which a target counts as large: a convention, not a law."""
FAR = 1.0
"""Proxy A-distance from which images count as far apart: a classifier errs on a quarter of them."""
NO_VERDICT = (
    "This is no verdict: none of these scores contains a model trained from scratch, so none can "
    "say whether transfer helps or hurts. A study can:"
)


@dataclass(frozen=True)
class Evidence:
    """What the advice rests on, of the candidate that ranks first.

    Attributes:
        per_class: training items of the smallest class.
        margin: w1's value: how much better neighbours on its features do than those that need no
            source; None where unknown.
        margin_se: its standard error, or None.
        proxy_a: proxy A-distance between source and target images, or None.
        w2: whether the second alarm fires, or None.
    """

    per_class: int
    margin: float | None
    margin_se: float | None = None
    proxy_a: float | None = None
    w2: bool | None = None


@dataclass(frozen=True)
class Advice:
    """Which strategies to try first, and why.

    Attributes:
        size: ``small`` or ``large``.
        similarity: ``similar``, ``different`` or ``unknown``.
        strategies: names of ``conf/strategy``, the first one first. Scratch is not among them:
            a study adds it.
        freeze: what to freeze, in a sentence.
        evidence: what was measured, a sentence each.
        caution: empty, or what speaks against any transfer here.
    """

    size: str
    similarity: str
    strategies: tuple[str, ...]
    freeze: str
    evidence: tuple[str, ...]
    caution: str


TABLE: dict[tuple[str, str], tuple[tuple[str, ...], str]] = {
    ("small", "similar"): (
        ("feature_extraction", "lp_ft"),
        "Freeze the backbone and train the head; then, from that head, tune all layers gently.",
    ),
    ("small", "different"): (
        ("layer_decay", "surgical_first", "fine_tune"),
        "Freeze little: late layers belong to the source's classes. Let early layers move slowly "
        "and tune the others; do not rely on frozen features.",
    ),
    ("large", "similar"): (
        ("lp_ft", "fine_tune"),
        "Freeze nothing in the end: train the head first, then all layers.",
    ),
    ("large", "different"): (
        ("fine_tune", "layer_decay"),
        "Freeze nothing, and let the rates reach those that scratch needs.",
    ),
}
SHIFTED = "norm_tuning"
"""Joins where features are similar but images look different: statistics and first layers."""


def advise(evidence: Evidence) -> Advice:
    """Read the decision table.

    Similar means what a frozen backbone needs: that its features tell the target's classes apart
    better than a random network or raw pixels do. The distance between the images does not decide
    it, as sources with the very same images and other labels show.

    Raises:
        ValueError: less than one item a class.
    """
    if evidence.per_class < 1:
        raise ValueError(f"per_class={evidence.per_class}: expected at least one item a class.")
    size = "large" if evidence.per_class >= LARGE else "small"
    similarity = _similarity(evidence.margin)
    # unknown is read as different: freezing what is bad costs more than tuning what is good
    row = "different" if similarity == "unknown" else similarity
    strategies, freeze = TABLE[size, row]
    far = evidence.proxy_a is not None and evidence.proxy_a >= FAR
    if row == "similar" and far:
        strategies = (*strategies, SHIFTED)
        freeze += " The images look different from the source's: norms and first layers may have "
        freeze += "to follow."
    return Advice(
        size, similarity, strategies, freeze, tuple(_sentences(evidence, size)), _caution(evidence)
    )


def rank_key(knn: float | None, logme: float | None) -> tuple[float, float]:
    """Return what candidates are ranked by, the largest first: kNN accuracy, then LogME.

    kNN held up best where scores were compared on many runs (Sorkhei et al., 2025), reads the same
    over backbones and widths of features, and has a baseline that needs no source. LogME sees
    finer differences and breaks ties.
    """
    low = float("-inf")
    return (low if knn is None else knn, low if logme is None else logme)


RANKED_BY = (
    "Ranked by the accuracy of nearest neighbours, which compares over backbones and predicted "
    "best in independent comparisons of scores; LogME breaks ties."
)


def command(target: Sequence[str], source: Sequence[str], strategies: Sequence[str]) -> str:
    """Write the command of the study that gives a verdict.

    Args:
        target: overrides that all arms share.
        source: overrides of the source: ``source=NAME`` first, then its own, which become arms
            like it, as scratch knows none of them.
        strategies: arms.
    """
    axes = dict(text.partition("=")[::2] for text in source)
    arms = {key.lstrip("+"): f"[{value}]" for key, value in axes.items()}
    arms["strategy"] = f"[{','.join(strategies)}]"
    written = ",".join(f"{key}:{value}" for key, value in arms.items())
    parts = [*target, f"+study.arms={{{written}}}"]  # "+": keys that the file does not have
    return " ".join(["transferlab run experiment=compare", *map(_quoted, parts)])


def _similarity(margin: float | None) -> str:
    if margin is None:
        return "unknown"
    return "similar" if margin > 0 else "different"


def _sentences(evidence: Evidence, size: str) -> list[str]:
    found = [
        f"{evidence.per_class} training items in the smallest class: {size} "
        f"(large from {LARGE} on)."
    ]
    if evidence.margin is None:
        found.append("Whether its features know the classes could not be measured: too few items.")
    else:
        se = (
            ""
            if evidence.margin_se is None
            else f" (standard error {100 * evidence.margin_se:.1f})"
        )
        found.append(
            f"Nearest neighbours on its features are {100 * evidence.margin:+.1f} points{se} from "
            "the best of a random network and raw pixels: "
            f"{'similar' if evidence.margin > 0 else 'different'}."
        )
    if evidence.proxy_a is None:
        found.append("How far the source's images lie is unknown: they are not at hand.")
    else:
        word = "far" if evidence.proxy_a >= FAR else "near"
        found.append(
            f"Proxy A-distance between the images {evidence.proxy_a:.2f} of 2: {word}. It does not "
            "predict the sign of a gain."
        )
    return found


def _caution(evidence: Evidence) -> str:
    if evidence.margin is not None and evidence.margin <= 0:
        return (
            "Early warning: its features are worth no more than none. Frozen they are likely to "
            "hurt; tuned throughout they may do no better than scratch."
        )
    if evidence.w2:
        return "Early warning: its features hardly tell the true labels from shuffled ones."
    return ""


def _quoted(text: str) -> str:
    """Quote an override for a shell where it has signs that one reads."""
    plain = all(sign.isalnum() or sign in "=._-+/:@," for sign in text)
    return text if plain else "'" + text.replace("'", "'\"'\"'") + "'"
