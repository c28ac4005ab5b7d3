"""The precision is the fastest one, found once, and fp32 wherever that can't be known."""

from pathlib import Path
from typing import Any

import pytest
import torch

from transferlab import precision
from transferlab.cluster import cluster
from transferlab.planning import plan_source
from transferlab.precision import MIXED, PLAIN, settle_precision, timed

LINE = ("target=digits", "backbone.name=test_resnet", "trainer=cpu", "trainer.precision=auto")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, fresh_cache: Path) -> list[dict[str, float]]:
    """What timing finds, one after the other, on a machine that computes in bf16."""
    del fresh_cache
    found: list[dict[str, float]] = []
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(precision, "timed", lambda *_: found.pop(0))
    return found


def test_what_is_set_stays(compose: Any, measured: list[dict[str, float]]) -> None:
    del measured
    assert settle_precision(compose(*LINE[:-1], "trainer.precision=64-true")) == "64-true"


@pytest.mark.parametrize(("bf16", "expected"), [(0.5, MIXED), (0.85, PLAIN), (3.0, PLAIN)])
def test_the_faster_one_is_taken_where_it_is_faster_beyond_noise(
    bf16: float, expected: str, compose: Any, measured: list[dict[str, float]]
) -> None:
    measured += [{PLAIN: 1.0, MIXED: bf16}]
    cfg = compose(*LINE)
    assert settle_precision(cfg) == expected
    assert settle_precision(cfg) == expected, "read back, not timed again"


def test_each_model_is_timed(compose: Any, measured: list[dict[str, float]]) -> None:
    measured += [{PLAIN: 1.0, MIXED: 0.5}, {PLAIN: 1.0, MIXED: 2.0}]
    assert settle_precision(compose(*LINE)) == MIXED
    assert settle_precision(compose(*LINE, "backbone.image_size=48")) == PLAIN


@pytest.mark.parametrize("other", ["trainer.threads=2", "trainer.channels_last=false"])
def test_what_is_not_in_a_name_is_not_timed_anew(
    other: str, make_plan: Any, measured: list[dict[str, float]]
) -> None:
    """Else a study that goes on with other threads would not find what it has made."""
    measured += [{PLAIN: 1.0, MIXED: 0.5}, {PLAIN: 1.0, MIXED: 2.0}]
    assert make_plan(*LINE).run_id == make_plan(*LINE, other).run_id
    assert len(measured) == 1


def test_all_runs_of_a_comparison_agree(make_plan: Any, measured: list[dict[str, float]]) -> None:
    """Other strategies, sources, heads, seeds: the model is the same, and so is the precision."""
    measured += [{PLAIN: 1.0, MIXED: 0.5}]
    line = (*LINE, "source=glyphs")
    for more in ((), ("strategy=scratch",), ("head=mlp", "seed=3"), ("optimizer=sgd",)):
        plan = make_plan(*line, *more)
        assert plan.cfg.trainer.precision == plan.identity["precision"] == MIXED


def test_a_source_run_has_its_arm_s_precision_whoever_plans_it(
    make_plan: Any, compose: Any, measured: list[dict[str, float]]
) -> None:
    """Also where it pretrains with other batches, for which a timing would find another one."""
    measured += [{PLAIN: 1.0, MIXED: 2.0}, {PLAIN: 1.0, MIXED: 0.5}]
    line = (*LINE, "source=glyphs", "batch_size=8", "source.pretrain.batch_size=16")
    by_itself = plan_source(compose(*line))
    assert by_itself.run_id == make_plan(*line, "target.shots=5").identity["source"]
    assert by_itself.cfg.trainer.precision == PLAIN
    assert len(measured) == 1


@pytest.mark.parametrize("why", ["no bf16", "elsewhere", "no room", "no such operation"])
def test_it_is_fp32_where_nothing_can_be_known(
    why: str,
    compose: Any,
    measured: list[dict[str, float]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    measured += [{PLAIN: 1.0, MIXED: 0.5}] * 2
    if why == "no bf16":
        monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
    elif why == "elsewhere":
        monkeypatch.setattr(cluster, "elsewhere", True)
    elif why == "no room":
        (tmp_path / "file").touch()
        monkeypatch.setenv("TRANSFERLAB_CACHE", str(tmp_path / "file"))
    else:
        monkeypatch.setattr(precision, "timed", _refused)
    assert settle_precision(compose(*LINE)) == PLAIN


def _refused(*_: Any) -> None:
    raise NotImplementedError("bf16")


def test_timing_has_the_threads_of_the_run_and_leaves_no_trace(
    compose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(5)
    expected, threads, seen = torch.rand(3), torch.get_num_threads(), set()
    torch.manual_seed(5)

    def step(mixed: bool) -> None:
        seen.add(torch.get_num_threads())
        stepped(mixed)

    def make(*given: Any) -> Any:
        nonlocal stepped
        stepped = original(*given)
        return step

    stepped: Any = None
    original = precision._step
    monkeypatch.setattr(precision, "_step", make)
    line = (*LINE, "backbone.image_size=32", f"trainer.threads={threads + 1}")
    found = timed(compose(*line), torch.device("cpu"), 4)
    assert seen == {threads + 1}
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.rand(3), expected)
    assert set(found) == {PLAIN, MIXED}
    assert all(seconds > 0 for seconds in found.values())
