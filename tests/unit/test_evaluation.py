from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig, OmegaConf

from transferlab import evaluation
from transferlab.evaluation import (
    choose_metric,
    further_scores,
    gather,
    gathered,
    sample,
    scores,
    write_predictions,
)
from transferlab.split_data import Data, open_data


@pytest.fixture
def digits(compose: Callable[..., DictConfig]) -> Data:
    cfg = compose()
    return open_data(cfg.target, cfg.backbone)


def test_scores_by_hand() -> None:
    logits = np.log(np.array([[3.0, 1.0], [1.0, 3.0], [3.0, 1.0], [3.0, 1.0]], dtype=np.float32))
    found = scores(logits, np.array([0, 1, 1, 0]))
    assert found["accuracy"] == 0.75
    assert found["macro_recall"] == 0.75
    assert found["log_loss"] == pytest.approx((3 * np.log(4 / 3) + np.log(4)) / 4)


@pytest.mark.parametrize(
    ("counts", "name"),
    [
        ((30, 10), "accuracy"),
        ((31, 10), "macro_recall"),
        ((5, 5), "accuracy"),
        ((9, 0), "macro_recall"),
    ],
)
def test_the_score_follows_class_balance(counts: tuple[int, int], name: str) -> None:
    labels = np.repeat([0, 1], counts)
    assert choose_metric("auto", labels, 2) == name
    assert choose_metric("accuracy", labels, 2) == "accuracy"


def test_outputs_are_put_in_order_and_padding_is_dropped() -> None:
    outputs = [
        (np.array([[5.0], [3.0]]), np.array([5, 3])),
        (np.array([[9.0], [5.0]]), np.array([9, 5])),
    ]
    assert gather(outputs, np.array([3, 5, 9]))[:, 0].tolist() == [3, 5, 9]
    with pytest.raises(RuntimeError, match="lost 1 of 2"):
        gather(outputs, np.array([3, 4]))
    with pytest.raises(RuntimeError, match="lost 2 of 2"):
        gather([], np.array([3, 4]))


def test_outputs_of_all_ranks_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (np.array([[0.0]]), np.array([0])), (np.array([[2.0]]), np.array([2]))
    assert gathered([first]) == [first]
    monkeypatch.setattr(evaluation, "from_all", lambda own: [own, [second, first], []])
    found = gathered([first])
    assert len(found) == 3
    assert gather(found, np.array([2, 0]))[:, 0].tolist() == [2, 0]


def test_a_sample_is_spread_and_distinct() -> None:
    positions = np.arange(100, 200)
    assert (sample(positions, 100) == positions).all()
    chosen = sample(positions, 7)
    assert len(set(chosen)) == 7
    assert {100, 199} <= set(chosen) <= set(positions)


def test_torchmetrics_are_computed_beside() -> None:
    node = {"_target_": "torchmetrics.classification.MulticlassAccuracy", "average": "micro"}
    logits = np.eye(4, dtype=np.float32)[[0, 1, 2, 0]]
    found = further_scores(OmegaConf.create({"own": node}), logits, np.array([0, 1, 2, 3]))
    assert found == {"own": 0.75}
    assert further_scores(None, logits, np.array([0, 1, 2, 3])) == {}


@pytest.mark.parametrize(("classes", "kept"), [(100, True), (101, False)])
def test_logits_are_kept_up_to_a_hundred_classes(
    classes: int, kept: bool, digits: Data, tmp_path: Path
) -> None:
    positions = np.array([0, 7, 9])
    logits = np.random.default_rng(0).normal(size=(3, classes)).astype(np.float32)
    groups = np.arange(len(digits.store)) // 2
    write_predictions(tmp_path / "p.parquet", digits.store, {"test": (positions, logits)}, groups)
    table = pd.read_parquet(tmp_path / "p.parquet")
    assert ("logits" in table) == kept
    assert table.group.tolist() == [0, 3, 4]
    assert table.item_id.tolist() == [digits.store.ids[p] for p in positions]
