"""What goes out to a tracker, and what a tracker that fails costs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transferlab.planning import Plan
from transferlab.run import execute
from transferlab.trackers.base import NOTHING, TrackedRun
from transferlab.trackers.sending import Sender
from transferlab.trackers.tensorboard import TensorBoard

MakePlan = Callable[..., Plan]
POINTS = ("open", "log", "close")


class Notebook:
    """A tracker that writes down what it is told, and raises at one point."""

    def __init__(self, holds: int = NOTHING, raises: str = "") -> None:
        self.holds, self.raises = holds, raises
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.closed: list[tuple[dict[str, Any], bool]] = []

    def _call(self, point: str) -> None:
        if point == self.raises:
            raise ConnectionError("nobody there\nand much more")

    def open(self, run: TrackedRun) -> int:
        self._call("open")
        return self.holds

    def log(self, values: dict[str, float], step: int) -> None:
        self._call("log")
        self.rows.append((step, values))

    def close(self, summary: dict[str, Any], failed: bool) -> None:
        self._call("close")
        self.closed.append((summary, failed))


@pytest.fixture
def send(tmp_path: Path) -> Callable[[Notebook], Sender]:
    run = TrackedRun("abc", "one", "study", "single", tmp_path)
    return lambda notebook: Sender("notebook", notebook, run)  # type: ignore[arg-type]


LINES = [(1, {"a": 1.0}), (2, {"a": 2.0}), (2, {"b": 3.0}), (4, {"a": 5.0})]


def test_a_step_is_one_row_and_goes_out_once_it_is_whole(send) -> None:
    notebook = Notebook()
    sender = send(notebook)
    for step, values in LINES:
        sender.log_metrics(values, step)
    assert notebook.rows == [(1, {"a": 1.0}), (2, {"a": 2.0, "b": 3.0})]
    sender.close({}, failed=False, whole=True)
    assert notebook.rows[2:] == [(4, {"a": 5.0})]


def test_a_row_that_was_cut_short_goes_out_when_the_run_goes_on(send) -> None:
    first, second = Notebook(), Notebook(holds=1)
    sender = send(first)
    sender.log_metrics(*reversed(LINES[0]))
    sender.log_metrics(*reversed(LINES[1]))
    sender.close({}, failed=True, whole=False)
    assert first.rows == [(1, {"a": 1.0})]
    assert first.closed == [({}, True)]
    sender = send(second)
    for step, values in LINES:
        sender.log_metrics(values, step)
    sender.close({}, failed=False, whole=True)
    assert first.rows + second.rows == [(1, {"a": 1.0}), (2, {"a": 2.0, "b": 3.0}), (4, {"a": 5.0})]


@pytest.mark.parametrize("holds", [NOTHING, 0, 1, 2, 3, 4, 9])
def test_only_steps_above_what_the_tracker_holds_go_out(send, holds: int) -> None:
    notebook = Notebook(holds)
    sender = send(notebook)
    for _ in range(2):  # a run that goes on from an older checkpoint logs steps again
        for step, values in LINES:
            sender.log_metrics(dict(values), step)
    sender.close({}, failed=False, whole=True)
    assert [step for step, _ in notebook.rows] == [step for step in (1, 2, 4) if step > holds]


@pytest.mark.parametrize("point", POINTS)
def test_a_tracker_that_raises_is_named_once_and_left_alone(send, point: str, capsys) -> None:
    notebook = Notebook(raises=point)
    sender = send(notebook)
    for step, values in LINES:
        sender.log_metrics(values, step)
    sender.close({"x": 1}, failed=False, whole=True)
    (line,) = capsys.readouterr().err.splitlines()
    assert "notebook" in line
    assert "ConnectionError: nobody there" in line
    assert "abc" in line
    assert (notebook.rows == []) == (point != "close")
    assert notebook.closed == ([({"x": 1}, False)] if point == "log" else [])


@pytest.mark.parametrize("point", POINTS)
def test_a_run_goes_on_without_a_tracker_that_fails(
    make_plan: MakePlan, point: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    pytest.importorskip("tensorboard")

    def broken(*_: Any) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(TensorBoard, point, broken)
    plan = make_plan("tracker=tensorboard")
    assert execute(plan)["status"] != "failed"
    (line,) = [li for li in capsys.readouterr().err.splitlines() if "tracker" in li]
    assert "tensorboard failed" in line
    assert "the disk is gone" in line
    assert len((plan.directory / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_place_that_cannot_be_written_is_no_reason_to_fail(make_plan: MakePlan, capsys) -> None:
    pytest.importorskip("tensorboard")
    plan = make_plan("tracker=tensorboard")
    plan.directory.mkdir(parents=True)
    (plan.directory / "tensorboard").write_text("a file is in the way")
    assert execute(plan)["status"] != "failed"
    assert "tensorboard failed when it was opened" in capsys.readouterr().err
