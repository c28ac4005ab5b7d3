import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from transferlab.transferability import knn_accuracy, neighbours, parc


@pytest.mark.parametrize("k", [1, 5])
def test_it_is_leave_one_out_with_cosine(k: int, cases) -> None:
    rows = np.random.default_rng(0).permutation(500)[:80]
    case = cases["hetero"].taken(rows)
    model = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
    if k == 1:  # ties are decided otherwise there
        theirs = cross_val_predict(model, case.x, case.y, cv=LeaveOneOut()) == case.y
        assert knn_accuracy(case.x, case.y, k) == pytest.approx(theirs.mean())
    unit = case.x / np.linalg.norm(case.x, axis=1, keepdims=True)
    right = 0
    for i in range(80):
        similar = unit @ unit[i]
        similar[i] = -9
        nearest = np.argsort(-similar)[:k]
        votes = {c: (sum(case.y[nearest] == c), similar[nearest][case.y[nearest] == c].sum())
                 for c in set(case.y[nearest])}  # fmt: skip
        right += max(votes, key=lambda c: votes[c]) == case.y[i]
    assert knn_accuracy(case.x, case.y, k) == pytest.approx(right / 80)


def test_blocks_of_rows_change_nothing(cases, monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases["imbalanced"]
    whole = knn_accuracy(case.x, case.y, 5)
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    assert knn_accuracy(case.x, case.y, 5) == whole


def test_an_item_is_not_its_own_neighbour_nor_is_its_group(rng) -> None:
    x, y = np.repeat(rng.normal(size=(10, 5)), 2, axis=0), np.repeat(rng.integers(2, size=10), 2)
    y[:4] = [0, 0, 1, 1]
    assert knn_accuracy(x, y, 1) == 1  # every item has its twin
    alone = knn_accuracy(x, y, 1, groups=np.repeat(np.arange(10), 2))
    singles = knn_accuracy(x[::2], y[::2], 1)
    assert alone == singles < 1


def test_many_neighbours_vote_for_the_majority() -> None:
    x = np.stack([np.ones(10), np.arange(10)], axis=1)
    assert knn_accuracy(x, [0] * 7 + [1] * 3, 100) == pytest.approx(0.7)


def test_a_class_of_one_item_is_never_found_and_zeros_are_like_none() -> None:
    assert knn_accuracy(np.eye(3), [0, 1, 2], 1) == 0
    x = np.array([[1.0, 0], [0, 0], [1, 0.1], [0.9, 0]])
    assert 0 <= knn_accuracy(x, [0, 1, 0, 0], 1) <= 0.75


def test_wrong_arguments_are_refused() -> None:
    x = np.eye(4)
    with pytest.raises(ValueError, match="k=0"):
        knn_accuracy(x, [0, 1, 0, 1], 0)
    with pytest.raises(ValueError, match="groups"):
        knn_accuracy(x, [0, 1, 0, 1], 1, groups=[0, 0, 0, 0])
    with pytest.raises(ValueError, match="correlation"):
        parc(np.ones((4, 1)), [0, 1, 0, 1])


def test_parc_by_its_definition(rng) -> None:
    x, y = rng.normal(size=(30, 8)), rng.integers(3, size=30)
    x[:, :3] += np.eye(3)[y]
    lower = np.tril_indices(30, k=-1)
    of_labels = (1 - np.corrcoef(np.eye(3)[y]))[lower].round(9)
    expected = spearmanr((1 - np.corrcoef(x))[lower], of_labels).statistic
    assert parc(x, y) == pytest.approx(expected, rel=1e-9)


def test_parc_where_nothing_differs_is_undefined() -> None:
    assert np.isnan(parc(np.ones((4, 3)), [0, 1, 0, 1]))
