import pytest
from omegaconf import OmegaConf

from transferlab.study.searching import ENOUGH_CURVES, _configured, medians
from transferlab.study.space import Range

SPACE = {"optimizer.lr": Range(1e-4, 1e-1, log=True), "depth": Range(1, 9, step=2)}


def test_medians_are_those_of_each_validation_but_the_last() -> None:
    curves = [[0.1, 0.2, 0.9], [0.3, 0.1, 0.9], [0.2, 0.4, 0.9], [0.6, 0.3, 0.9]]
    assert medians(curves) == [0.25, 0.25]
    assert medians([*curves, [0.0, 0.0, 0.0]]) == [0.2, 0.2]


def test_too_few_curves_stop_nothing() -> None:
    assert medians([[0.1, 0.2]] * (ENOUGH_CURVES - 1)) == []
    assert medians([]) == []


def test_a_single_validation_stops_nothing() -> None:
    assert medians([[0.1]] * ENOUGH_CURVES) == []


@pytest.mark.parametrize(
    ("lr", "depth", "tried"),
    [(0.01, 3, True), (0.2, 3, False), (0.01, 4, False), (0.01, "all", False), (0.01, True, False)],
)
def test_the_first_trial_is_the_arm_s_own_where_the_search_holds_it(lr, depth, tried) -> None:
    cfg = OmegaConf.create({"optimizer": {"lr": lr}, "depth": depth})
    own = (("optimizer.lr", lr), ("depth", depth))
    assert _configured(cfg, SPACE) == (own if tried else None)
