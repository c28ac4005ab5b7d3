"""Probes end as in Lightning's loop, and in company as alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from transferlab import fitting, probes, run_together
from transferlab.fitting import Fit
from transferlab.module import DivergedError
from transferlab.planning import Plan
from transferlab.records import write_text
from transferlab.run import execute, finished
from transferlab.study.requests import serve

MakePlan = Callable[..., Plan]
LINE = (
    "backbone.name=test_resnet", "backbone.image_size=32", "source=none", "strategy.init=source",
    "target.shots=6", "budget.steps=40", "batch_size=10", "trainer.validations=4",
    "trainer.precision=32-true", "strategy=feature_extraction", "backbone=timm",
    "trainer.log_every=5", "trainer.feature_cache_gb=0",
)  # fmt: skip


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def head(fit: Fit) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in fit.module.model.head.parameters()])


def alone(plan: Plan, folder: Path) -> Fit:
    (found,) = probes.fit([plan], None, [folder], [[]])
    assert isinstance(found, Fit)
    return found


@pytest.mark.parametrize(
    "more",
    [
        (), ("optimizer=sgd",), ("loss=focal",), ("loss=class_weights", "loss.label_smoothing=0.1"),
        ("head=cosine",), ("head=mlp",), ("scheduler=constant",), ("checkpoint.select=best",),
        ("augmentation=light", "views=2"), ("trainer.threads=1", "budget.steps=23"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_probe_ends_as_in_lightnings_loop(
    more: tuple[str, ...], make_plan: MakePlan, tmp_path: Path
) -> None:
    plan = make_plan(*LINE, "optimizer.lr=0.01", *more)
    assert probes.eligible(plan)
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()
    theirs = fitting.fit(plan, None, tmp_path / "theirs", [])
    ours = alone(plan, tmp_path / "ours")
    torch.testing.assert_close(head(ours), head(theirs), rtol=1e-4, atol=1e-5)
    for one, other in zip(lines(tmp_path / "ours"), lines(tmp_path / "theirs"), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert ours.selected_step == theirs.selected_step
    for one, other in zip(ours.history.curve, theirs.history.curve, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    for count in ("trainable_parameters", "training_multiply_adds"):
        assert getattr(ours.cost, count) == getattr(theirs.cost, count)
    assert (tmp_path / "ours" / "early.parquet").exists()


def test_in_company_each_is_what_it_is_alone(make_plan: MakePlan, tmp_path: Path) -> None:
    plans = [
        make_plan(*LINE, f"optimizer.lr={lr}", f"optimizer.weight_decay={wd}")
        for lr in (1e-3, 1e-2, 1e-1)
        for wd in (0, 0.05)
    ]
    assert len({probes.together(plan) for plan in plans}) == 1
    folders = [tmp_path / str(number) for number in range(len(plans))]
    for folder in folders:
        folder.mkdir()
    fits = probes.fit(plans, None, folders, [[] for _ in plans])
    for number, (plan, fit, folder) in enumerate(zip(plans, fits, folders, strict=True)):
        assert isinstance(fit, Fit)
        own = tmp_path / f"alone-{number}"
        own.mkdir()
        assert torch.equal(head(alone(plan, own)), head(fit))
        assert lines(own) == lines(folder)
    assert len({float(head(fit).sum()) for fit in fits if isinstance(fit, Fit)}) == len(plans)


@pytest.mark.parametrize(
    "other",
    ["seed=1", "batch_size=12", "optimizer=sgd", "head=cosine", "budget.steps=30",
     "loss=focal", "checkpoint.select=best", "target.shots=7"],
)  # fmt: skip
def test_what_differs_in_more_than_the_optimizer_is_no_company(
    other: str, make_plan: MakePlan
) -> None:
    assert probes.together(make_plan(*LINE)) != probes.together(make_plan(*LINE, other))


@pytest.mark.parametrize(
    "other",
    ["strategy=fine_tune", "strategy=lp_ft", "trainer.accumulate=2", "trainer.gradient_clip=1",
     "checkpoint.every_steps=5", "trainer.reuse_gb=0", "checkpoint.keep=all"],
)  # fmt: skip
def test_other_runs_are_lightnings(other: str, make_plan: MakePlan) -> None:
    assert not probes.eligible(make_plan(*LINE, other))


PLAIN_SGD = ("optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false")


def beside_one_that_diverges(
    make_plan: MakePlan, folder: Path, *more: str
) -> tuple[Fit | DivergedError, Fit | DivergedError, Plan]:
    """Fit a probe and one whose rate is 1e38 together; the plan is the latter's."""
    plans = [make_plan(*LINE, *PLAIN_SGD, *more, f"optimizer.lr={lr}") for lr in ("0.01", "1e38")]
    folders = [folder / "good", folder / "bad"]
    for one in folders:
        one.mkdir()
    good, bad = probes.fit(plans, None, folders, [[], []])
    return good, bad, plans[1]


def test_one_that_diverges_harms_no_other(make_plan: MakePlan, tmp_path: Path) -> None:
    good, bad, _ = beside_one_that_diverges(make_plan, tmp_path)
    assert isinstance(good, Fit)
    assert isinstance(bad, DivergedError)
    assert torch.isfinite(head(good)).all()


def test_the_last_update_can_be_the_one_that_diverges(make_plan: MakePlan, tmp_path: Path) -> None:
    """Its loss, of the weights before, is finite; in Lightning's loop it is an outcome too."""
    good, bad, plan = beside_one_that_diverges(
        make_plan, tmp_path, "budget.steps=1", "trainer.validations=1", "scheduler=constant",
        "target.shots=1", "batch_size=20",
    )  # fmt: skip
    assert isinstance(good, Fit)
    assert "outputs are NaN or infinite after 1 steps" in str(bad)
    with pytest.raises(DivergedError, match="outputs are NaN or infinite after 1 steps"):
        fitting.fit(plan, None, tmp_path, [])


def test_what_diverges_while_it_is_measured_ends_no_other(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = [make_plan(*LINE, f"optimizer.lr={lr}", folder=tmp_path) for lr in (0.01, 0.03, 0.1)]
    own = run_together.measure

    def measured(plan: Plan, fit: Fit) -> Any:
        if plan is plans[1]:
            raise DivergedError("outputs are NaN or infinite")
        return own(plan, fit)

    monkeypatch.setattr(run_together, "measure", measured)
    run_together.attempt_together(plans, finished)
    records = [json.loads((plan.directory / "run.json").read_text()) for plan in plans]
    assert [record["status"] for record in records] == ["done", "diverged", "done"]


def test_jobs_make_them_together(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records are those of the runs one by one."""
    sizes: list[int] = []
    fit = probes.fit

    def watching(plans: Any, *arguments: Any) -> Any:
        sizes.append(len(plans))
        return fit(plans, *arguments)

    monkeypatch.setattr(probes, "fit", watching)
    found = []
    for place in ("one by one", "together"):
        own = tmp_path / place
        plans = [make_plan(*LINE, f"optimizer.lr={lr}", folder=own) for lr in (0.01, 0.03, 0.1)]
        if place == "together":
            for plan in plans:
                config = plan.directory / "config.yaml"
                write_text(config, OmegaConf.to_yaml(plan.cfg, resolve=True))
            request = tmp_path / "request.json"
            request.write_text(json.dumps({"runs": [str(plan.directory) for plan in plans]}))
            serve(request)
            found.append([json.loads((p.directory / "run.json").read_text()) for p in plans])
        else:
            found.append([execute(plan) for plan in plans])
    assert sizes == [1, 1, 1, 3]
    for one, other in zip(*found, strict=True):
        for name in ("metrics", "curve", "status", "run_id", "selected_step"):
            assert one[name] == other[name]
