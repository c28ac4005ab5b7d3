"""Greedy soup: what is kept, of what, and under which name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from transferlab.callbacks.soup import greedy_soup
from transferlab.errors import UserError
from transferlab.planning import Plan
from transferlab.run import execute, made

MakePlan = Callable[..., Plan]
State = dict[str, Tensor]
SETTINGS = ("budget.steps=12", "batch_size=16", "target.max_validation=60")
RATES = (0.003, 0.01, 0.03)


def states(*values: float) -> list[State]:
    return [{"w": torch.tensor([v, 2 * v]), "count": torch.tensor(i)} for i, v in enumerate(values)]


def nearness(to: float) -> Callable[[State], float]:
    return lambda state: -abs(float(state["w"][0]) - to)


def test_exactly_those_are_kept_that_do_not_lower_the_score() -> None:
    soup, kept, scores = greedy_soup(states(1.5, 0.5, 4.0, 1.0), nearness(1.0))
    # 1.5 alone; (1.5 + 0.5) / 2 = 1; with 4 it would be 2; (1.5 + 0.5 + 1) / 3 = 1, an equal
    assert kept == [True, True, False, True]
    assert scores == [-0.5, 0.0, -1.0, 0.0]
    assert soup["w"].tolist() == [1.0, 2.0]
    assert soup["count"] == 0  # of the best


def test_the_first_is_kept_whatever_it_scores() -> None:
    soup, kept, _ = greedy_soup(states(9.0, 8.0), lambda state: -float(state["w"][0] != 9.0))
    assert kept == [True, False]
    assert soup["w"].tolist() == [9.0, 18.0]
    with pytest.raises(ValueError, match="at least one"):
        greedy_soup([], nearness(0))


def test_many_are_averaged_without_drift() -> None:
    values = torch.randn(200, generator=torch.Generator().manual_seed(0)).double() * 1e3
    many = [{"w": value.float()[None]} for value in values]
    soup, kept, _ = greedy_soup(many, lambda _: 1.0)
    assert all(kept)
    expected = torch.stack([state["w"].double() for state in many]).mean(0).float()
    assert torch.equal(soup["w"], expected)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kitchen")


@pytest.fixture
def runs(kitchen: Path, make_plan: MakePlan) -> list[Plan]:
    """Three finished runs that differ in their rate."""
    plans = [make_plan(*SETTINGS, f"optimizer.lr={rate}", folder=kitchen) for rate in RATES]
    for plan in plans:
        assert execute(plan)["status"] in ("done", "diverged")
        record = json.loads((plan.directory / "run.json").read_text())
        if record["status"] != "done":  # so few steps may not beat chance
            record["status"] = "done"
            (plan.directory / "run.json").write_text(json.dumps(record))
    return plans


def soup_of(make_plan: MakePlan, *entries: Any, more: tuple[str, ...] = (), **kwargs: Any) -> Plan:
    listed = ",".join(f"'{entry}'" for entry in entries)
    given = ("strategy=greedy_soup", f"strategy.callbacks.soup.runs=[{listed}]")
    return make_plan(*SETTINGS, *given, *more, **kwargs)


def test_a_soup_is_a_run_of_zero_steps(runs: list[Plan], make_plan: MakePlan) -> None:
    plan = soup_of(make_plan, *(run.directory for run in runs))
    record = execute(plan)
    assert record["status"] in ("done", "diverged")
    assert record["budget_steps"] == plan.identity["steps"] == 0
    assert record["n_trials"] == len(record["trials"]) == 3
    assert record["cost"]["training_multiply_adds"] == 0
    assert [point["step"] for point in record["curve"]] == [0]
    own = [trial["own_score"] for trial in record["trials"]]
    assert own == sorted(own, reverse=True)
    assert own[0] == record["trials"][0]["score"]  # the same images, the same score
    kept = [trial for trial in record["trials"] if trial["chosen"]]
    assert kept[0] == record["trials"][0]
    scores = [trial["score"] for trial in kept]
    assert scores == sorted(scores)
    assert record["metrics"]["validation"][record["metric"]] == scores[-1]

    found = load_file(plan.directory / "checkpoints" / "last.safetensors")
    folders = {run.run_id: run.directory for run in runs}
    weights = [load_file(folders[t["run_id"]] / "checkpoints" / "last.safetensors") for t in kept]
    for name, value in found.items():
        if value.is_floating_point():
            mean = torch.stack([state[name].double() for state in weights]).mean(0)
            assert torch.equal(value, mean.to(value.dtype)), name
    assert made(plan) is not None


def test_its_name_follows_from_weights_and_not_from_paths(
    runs: list[Plan], make_plan: MakePlan, tmp_path: Path
) -> None:
    folders = [run.directory for run in runs]
    plan = soup_of(make_plan, *folders)
    for folder in folders:
        shutil.copytree(folder, tmp_path / "moved" / folder.name)
    moved = [tmp_path / "moved" / folder.name for folder in folders]
    assert soup_of(make_plan, *moved).run_id == plan.run_id
    assert soup_of(make_plan, *reversed(moved)).run_id == plan.run_id
    assert soup_of(make_plan, *folders, *moved).run_id == plan.run_id
    assert soup_of(make_plan, tmp_path / "moved" / "*").run_id == plan.run_id
    assert soup_of(make_plan, *folders, more=("budget.steps=50",)).run_id == plan.run_id
    assert soup_of(make_plan, *folders[:2]).run_id != plan.run_id
    assert str(tmp_path) not in json.dumps(plan.identity, default=str)
    (weights,) = (moved[0] / "checkpoints").iterdir()
    shutil.copy(next((folders[1] / "checkpoints").iterdir()), weights)
    assert soup_of(make_plan, *moved).run_id != plan.run_id


def test_a_pattern_takes_what_trained_and_is_done(
    runs: list[Plan], make_plan: MakePlan, kitchen: Path
) -> None:
    pattern = kitchen / "runs" / "*"
    before = soup_of(make_plan, pattern, folder=kitchen)
    execute(before)  # now the pattern matches it too
    unfinished = kitchen / "runs" / "unfinished"
    unfinished.mkdir()
    assert soup_of(make_plan, pattern, folder=kitchen).run_id == before.run_id
    with pytest.raises(UserError, match="trained nothing"):
        soup_of(make_plan, before.directory, runs[0].directory)
    with pytest.raises(UserError, match=r"holds no run\.json"):
        soup_of(make_plan, unfinished, runs[0].directory)
    unfinished.rmdir()
    shutil.rmtree(before.directory)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("seed=1", "seed 0, the soup 1"),
        ("head=mlp", "head"),
        ("target.shots=6", r"target\.shots and target\.fraction \[5, None\], the soup \[6, None\]"),
        ("target.split_seed=3", "target split"),
        ("backbone=resnet10t", "backbone"),
        ("backbone.image_size=64", "backbone"),
    ],
)
def test_the_first_difference_is_named(
    change: str, words: str, runs: list[Plan], make_plan: MakePlan
) -> None:
    with pytest.raises(UserError, match=f"has {words}"):
        soup_of(make_plan, *(run.directory for run in runs), more=(change,))


def test_runs_from_another_source_are_refused(
    runs: list[Plan], make_plan: MakePlan, tmp_path: Path
) -> None:
    weights = next((runs[0].directory / "checkpoints").iterdir())
    source = ("source=checkpoint", f"source.path='{weights}'")
    with pytest.raises(UserError, match="has source None"):
        soup_of(make_plan, *(run.directory for run in runs), more=source)


def test_too_few_runs_and_runs_without_weights_are_refused(
    runs: list[Plan], make_plan: MakePlan, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="holds 1 finished runs"):
        soup_of(make_plan, runs[0].directory)
    with pytest.raises(UserError, match="holds 0 finished runs"):
        soup_of(make_plan, tmp_path / "*")
    bare = tmp_path / runs[1].run_id
    shutil.copytree(runs[1].directory, bare)
    shutil.rmtree(bare / "checkpoints")
    with pytest.raises(UserError, match=r"kept no weights.*checkpoint\.keep=last"):
        soup_of(make_plan, runs[0].directory, bare)
