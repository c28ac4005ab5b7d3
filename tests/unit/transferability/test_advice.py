import itertools
import shlex

import pytest

from transferlab.config import config_folder
from transferlab.transferability.advice import (
    LARGE,
    TABLE,
    Evidence,
    advise,
    command,
    rank_key,
)


@pytest.mark.parametrize(
    ("per_class", "margin", "row", "first"),
    [
        (5, 0.1, ("small", "similar"), "feature_extraction"),
        (5, 0.0, ("small", "different"), "layer_decay"),
        (LARGE, 0.1, ("large", "similar"), "lp_ft"),
        (LARGE, -0.1, ("large", "different"), "fine_tune"),
    ],
)
def test_the_table_is_read_by_size_and_by_what_features_are_worth(
    per_class: int, margin: float, row: tuple[str, str], first: str
) -> None:
    advice = advise(Evidence(per_class, margin))
    assert (advice.size, advice.similarity) == row
    assert advice.strategies[0] == first
    assert bool(advice.caution) == (margin <= 0)


def test_frozen_features_are_advised_only_where_they_were_seen_to_help() -> None:
    for per_class, margin in itertools.product((1, 20, 1000), (None, -0.2, 0.0)):
        assert "feature_extraction" not in advise(Evidence(per_class, margin)).strategies


def test_unknown_similarity_is_said_and_read_as_different() -> None:
    advice = advise(Evidence(1, None))
    assert advice.similarity == "unknown"
    assert advice.strategies == TABLE["small", "different"][0]
    assert "could not be measured" in advice.evidence[1]


def test_images_that_look_different_change_what_is_frozen_and_not_the_row() -> None:
    near, far = advise(Evidence(5, 0.1, proxy_a=0.2)), advise(Evidence(5, 0.1, proxy_a=1.9))
    assert near.similarity == far.similarity == "similar"
    assert set(far.strategies) - set(near.strategies) == {"norm_tuning"}
    assert "look different" in far.freeze
    assert advise(Evidence(5, -0.1, proxy_a=0.0)).similarity == "different"


def test_the_evidence_is_told_in_figures() -> None:
    told = " ".join(advise(Evidence(20, -0.105, 0.026, 1.98)).evidence)
    assert all(figure in told for figure in ("20 training", "-10.5 points", "2.6", "1.98 of 2"))


def test_the_second_alarm_is_told_where_the_first_is_silent() -> None:
    assert "shuffled" in advise(Evidence(5, 0.1, w2=True)).caution


def test_every_strategy_that_is_advised_exists() -> None:
    known = {path.stem for path in (config_folder() / "strategy").glob("*.yaml")}
    advised = {name for names, _ in TABLE.values() for name in names} | {"norm_tuning"}
    assert advised <= known


def test_ranks_follow_neighbours_then_logme() -> None:
    keys = [(0.9, 0.1), (0.9, 0.3), (0.95, None), (None, 5.0)]
    order = sorted(range(4), key=lambda i: rank_key(*keys[i]), reverse=True)
    assert order == [2, 1, 0, 3]


def test_the_command_quotes_for_a_shell() -> None:
    source = ["source=glyphs", "source.root='a b'"]
    text = command(["target=digits", "target.root=c d"], source, ["lp_ft", "fine_tune"])
    assert shlex.split(text) == [
        "transferlab", "run", "experiment=compare", "target=digits", "target.root=c d",
        "+study.arms={source:[glyphs],source.root:['a b'],strategy:[lp_ft,fine_tune]}",
    ]  # fmt: skip


def test_no_item_is_refused() -> None:
    with pytest.raises(ValueError, match="per_class=0"):
        advise(Evidence(0, None))
