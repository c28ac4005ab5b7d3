import numpy as np
import pytest

from transferlab.transferability import knn_accuracy, leep, logme, nce
from transferlab.transferability.scoring import SCORES, score_all


def test_all_scores_and_their_z(cases) -> None:
    case = cases["base"].taken(np.arange(0, 500, 4))
    found = score_all(case.x, case.y, source_probs=case.probs, shuffles=5)
    assert tuple(found) == SCORES
    assert all(score.value is not None and score.reason == "" for score in found.values())
    assert found["logme"].value == logme(case.x, case.y)
    assert found["leep"].value == leep(case.probs, case.y)
    assert found["nce"].value == nce(case.z, case.y)
    assert found["knn_5"].value == knn_accuracy(case.x, case.y, 5)
    assert all(score.z > 2 for name, score in found.items() if name != "transrate")


def test_what_does_not_apply_says_why(cases) -> None:
    case = cases["few_shot"].taken(np.arange(0, 40, 4))  # one item a class
    found = score_all(case.x, case.y, shuffles=2)
    missing = {name for name, score in found.items() if score.value is None}
    assert missing == set(SCORES) - {"logme", "regularized_h_score", "gbc", "transrate"}
    assert all(found[name].reason for name in missing)


def test_groups_are_left_out_whole_and_shuffled_whole_where_they_are_pure(rng) -> None:
    groups = np.repeat(np.arange(20), 5)
    y = np.repeat(np.arange(20) % 2, 5)
    x = rng.normal(size=(20, 6))[groups] + 0.01 * rng.normal(size=(100, 6))
    loose, bound = score_all(x, y, shuffles=10), score_all(x, y, groups=groups, shuffles=10)
    assert loose["knn_1"].value == 1 > bound["knn_1"].value
    assert loose["knn_1"].z > 5
    assert loose["logme"].z > 4 > abs(bound["logme"].z)
    mixed = score_all(x, rng.integers(2, size=100), groups=groups, shuffles=2)
    assert mixed["logme"].z is not None


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="1 class"):
        score_all(np.ones((4, 2)), [1, 1, 1, 1])
