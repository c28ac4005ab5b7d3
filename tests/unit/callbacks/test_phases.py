"""The schedule at work in a plain Lightning Trainer, with a module of one's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, AdamW
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset

from transferlab.callbacks.gradual_unfreezing import GradualUnfreezing
from transferlab.callbacks.layerwise_lr_decay import LayerwiseLRDecay
from transferlab.callbacks.phases import Phases, everything
from transferlab.errors import RunError, UserError

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.*treespec.*"),
]
LR = 0.1
BATCHES = 4  # optimiser steps of an epoch
State = dict[str, Tensor]


class Net(LightningModule):
    """Three layer groups and a head; the score of each validation comes from a list."""

    def __init__(self, configure: Callable[[LightningModule], Any], scores: list[float]) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            *(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)) for _ in range(3))
        )
        self.head = nn.Linear(4, 2)
        self.configure, self.scores = configure, scores

    def configure_optimizers(self) -> Any:
        return self.configure(self)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        # dropout and data of the step: Lightning restores neither, nor skips what a loader gave
        torch.manual_seed(1000 + self.global_step)
        inputs = torch.randn(8, 4)
        labels = (inputs.sum(1) > 0).long()
        return nn.functional.cross_entropy(self.head(self.backbone(inputs)), labels)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        number = self.global_step // BATCHES - 1
        score = self.scores[number] if 0 <= number < len(self.scores) else 0.0
        self.log("validation_score", score)


class Recorder(Callback):
    """Look at every optimiser step from within; must come after the callbacks it watches."""

    def __init__(self) -> None:
        self.rates: dict[int, dict[str, float]] = {}
        self.groups: dict[int, list[dict[str, Any]]] = {}
        self.flags: dict[int, set[str]] = {}
        self.training: dict[int, set[str]] = {}
        self.before: dict[int, State] = {}
        self.changed: dict[int, set[str]] = {}
        self.validated: dict[int, State] = {}
        self.states: dict[int, int] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        names = {id(p): n for n, p in pl_module.named_parameters()}

        def look(optimizer: Any, *_: Any) -> None:
            step = trainer.global_step
            groups = optimizer.param_groups
            self.rates[step] = {names[id(p)]: g["lr"] for g in groups for p in g["params"]}
            self.groups[step] = [{k: v for k, v in g.items() if k != "params"} for g in groups]

        optimizer: Any = trainer.optimizers[0]
        getattr(optimizer, "optimizer", optimizer).register_step_pre_hook(look)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        step = trainer.global_step
        self.before[step] = {k: v.clone() for k, v in pl_module.state_dict().items()}
        self.flags[step] = {n for n, p in pl_module.named_parameters() if p.requires_grad}
        self.training[step] = {p for p, m in pl_module.named_modules() if p and m.training}
        self.states[step] = len(trainer.optimizers[0].state)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        step = trainer.global_step - 1
        if step < 0:  # the first part of a step that accumulates
            return
        now, before = pl_module.state_dict(), self.before[step]
        self.changed[step] = {k for k, v in now.items() if not torch.equal(v, before[k])}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated[trainer.global_step] = {
            k: v.clone() for k, v in pl_module.state_dict().items()
        }


def sgd(module: LightningModule) -> SGD:
    return SGD(module.parameters(), lr=LR, momentum=0.9)


def loader() -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(8 * BATCHES, 4, generator=generator)
    return DataLoader(TensorDataset(inputs, (inputs.sum(1) > 0).long()), batch_size=8)


def trainer_for(callbacks: list[Any], **options: Any) -> Trainer:
    given = {"max_epochs": 3, "logger": False, "enable_checkpointing": False, **options}
    return Trainer(
        accelerator="cpu", devices=1, callbacks=callbacks, enable_progress_bar=False,
        enable_model_summary=False, **given,
    )  # fmt: skip


def fit(
    callbacks: list[Callback], configure: Callable[..., Any] = sgd, scores: tuple[float, ...] = (),
    net: type[Net] = Net, **options: Any,
) -> tuple[Recorder, Net, Trainer]:  # fmt: skip
    torch.manual_seed(0)
    module, recorder = net(configure, list(scores)), Recorder()
    trainer = trainer_for([*callbacks, recorder], **options)
    trainer.fit(module, loader(), loader())
    return recorder, module, trainer


def layers(*numbers: int) -> set[str]:
    """Names of the parameters of body layers, and of the head for number 3."""
    own = {f"backbone.{n}.{p}" for n in numbers if n < 3
           for p in ("0.weight", "0.bias", "1.weight", "1.bias")}  # fmt: skip
    return own | ({"head.weight", "head.bias"} if 3 in numbers else set())


def buffers(*numbers: int) -> set[str]:
    kinds = ("running_mean", "running_var", "num_batches_tracked")
    return {f"backbone.{n}.1.{kind}" for n in numbers for kind in kinds}


THREE = {
    "head": {"train": ["head"], "until": {"epochs": 1}},
    "last": {"train": ["last 2"], "rates": {2: 0.5}, "until": {"steps": 3}},
    "all": {"train": ["all"], "lr": 0.01},
}


def numbers_at(step: int) -> tuple[int, ...]:
    return (3,) if step < 4 else (2, 3) if step < 7 else (0, 1, 2, 3)


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_what_trains_at_every_step(kind: type) -> None:
    """Frozen parameters and buffers are bit-identical, in eval, and have no optimizer state."""

    def configure(module: LightningModule) -> Any:
        return kind(module.parameters(), lr=LR, weight_decay=0.1)

    recorder, module, _ = fit([Phases(THREE)], configure)
    assert sorted(recorder.changed) == list(range(12))
    for step, changed in recorder.changed.items():
        numbers = numbers_at(step)
        assert recorder.flags[step] == layers(*numbers), step
        # a bias before a norm gets a gradient of rounding error, or none at all
        moot = {f"backbone.{n}.0.bias" for n in numbers}
        expected = layers(*numbers) | buffers(*(n for n in numbers if n < 3))
        assert changed | moot == expected | moot, step
        assert changed <= expected, step
        for path in recorder.training[step] - {"backbone"}:
            assert path == "head" or int(path.split(".")[1]) in numbers, (step, path)
        assert {f"backbone.{n}.2" for n in numbers if n < 3} <= recorder.training[step]
    assert recorder.states[4] == (2 if kind is AdamW else 0)
    assert all(recorder.states[s] == (6 if kind is AdamW else 0) for s in (5, 6, 7))
    assert all(p.requires_grad for p in module.parameters())


def test_what_never_thaws_has_no_gradient_and_no_state() -> None:
    def configure(module: LightningModule) -> Any:
        return AdamW(module.parameters(), lr=LR, weight_decay=0.5)

    recorder, module, trainer = fit([Phases({"h": {"train": ["head"]}})], configure)
    assert {id(p) for p in trainer.optimizers[0].state} == {id(p) for p in module.head.parameters()}
    assert all(p.grad is None for p in module.backbone.parameters())
    first = recorder.before[0]
    now = module.state_dict()
    assert all(torch.equal(now[k], first[k]) for k in first if k.startswith("backbone"))
    module.backbone.train()  # between fits the module is the user's again
    assert module.backbone.training


def test_effective_rates_without_a_scheduler() -> None:
    recorder, _, trainer = fit([Phases(THREE)])
    for step, rates in recorder.rates.items():
        numbers = numbers_at(step)
        expected = dict.fromkeys(rates, 0.0) | dict.fromkeys(layers(*numbers), LR)
        if 2 in numbers:
            expected |= dict.fromkeys(layers(2), LR / 2)
        if 0 in numbers:
            expected |= dict.fromkeys(layers(0, 1), 0.01)
        assert rates == pytest.approx(expected), step
    assert {g["lr"] for g in trainer.optimizers[0].param_groups} == {LR}, "put back"
    assert not any("scheduled" in g for g in trainer.optimizers[0].param_groups)


def with_scheduler(make: Callable[[Any], Any], **config: Any) -> Callable[..., Any]:
    def configure(module: LightningModule) -> Any:
        optimizer = sgd(module)
        scheduler = {"scheduler": make(optimizer), "interval": "step", **config}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    return configure


def test_a_chainable_scheduler_decays_as_without_the_schedule() -> None:
    """StepLR multiplies what it finds in the group: a rate of the schedule must not be there."""
    recorder, _, trainer = fit([Phases(THREE)], with_scheduler(lambda o: StepLR(o, 3, 0.5)))
    for step, rates in recorder.rates.items():
        factor = 0.5 ** (step // 3)
        assert rates["head.weight"] == pytest.approx(LR * factor), step
        assert rates["backbone.2.0.weight"] == pytest.approx(
            0.0 if step < 4 else LR / 2 * factor
        ), step
        assert rates["backbone.0.0.weight"] == pytest.approx(0.0 if step < 7 else 0.01 * factor)
    assert {g["lr"] for g in trainer.optimizers[0].param_groups} == {LR * 0.5**4}


def test_a_rebased_phase_starts_the_schedule_at_its_thaw() -> None:
    phases = {
        "head": {"train": ["head"], "until": {"steps": 4}},
        "all": {"train": ["all"], "lr": 0.01, "rebase": True},
    }
    recorder, *_ = fit([Phases(phases)], with_scheduler(lambda o: StepLR(o, 3, 0.5)))
    for step in range(4, 12):
        factor = 0.5 ** (step // 3)
        assert recorder.rates[step]["head.weight"] == pytest.approx(LR * factor)
        assert recorder.rates[step]["backbone.0.0.weight"] == pytest.approx(0.01 * factor / 0.5)


def test_an_absolute_rate_is_the_peak_under_one_cycle() -> None:
    phases = {"a": {"train": ["all"], "lr": {"body": 0.01}}}
    recorder, *_ = fit([Phases(phases)], with_scheduler(lambda o: OneCycleLR(o, LR, 12)))
    peak = max(recorder.rates, key=lambda s: recorder.rates[s]["head.weight"])
    assert recorder.rates[peak]["head.weight"] == pytest.approx(LR, rel=0.05)
    for rates in recorder.rates.values():
        assert rates["backbone.0.0.weight"] == pytest.approx(rates["head.weight"] * 0.01 / LR)


def test_an_absolute_rate_falls_when_a_plateau_scheduler_says_so() -> None:
    phases = {"a": {"train": ["all"], "lr": {"body": 0.01}}}
    configure = with_scheduler(
        lambda o: ReduceLROnPlateau(o, "max", patience=0, factor=0.5),
        interval="epoch", monitor="validation_score",
    )  # fmt: skip
    recorder, *_ = fit([Phases(phases)], configure, (0.5, 0.5, 0.5))
    assert [recorder.rates[s]["backbone.0.0.weight"] for s in (0, 11)] == pytest.approx(
        [0.01, 0.005]
    )


@pytest.mark.parametrize("decay_first", [True, False])
def test_unfreezing_and_decay_together_in_any_order(decay_first: bool) -> None:
    both: list[Callback] = [GradualUnfreezing(every={"steps": 2}), LayerwiseLRDecay(0.5, "stages")]
    configure = with_scheduler(lambda o: StepLR(o, 4, 0.1))
    recorder, *_ = fit(both[::-1] if decay_first else both, configure)
    for step, rates in recorder.rates.items():
        for number in range(4):
            on = step >= 2 * (3 - number)
            expected = LR * 0.1 ** (step // 4) * 0.5 ** (3 - number) if on else 0.0
            for name in layers(number):
                assert rates[name] == pytest.approx(expected), (step, name)


def test_momentum_is_set_for_a_phase_and_put_back() -> None:
    phases = {
        "a": {"train": ["head"], "until": {"steps": 4}, "momentum": lambda p: 0.5 + p / 10},
        "b": {"train": ["all"]},
    }
    recorder, *_ = fit([Phases(phases)])
    found = [recorder.groups[s][0]["momentum"] for s in range(12)]
    assert found == pytest.approx([0.5, 0.525, 0.55, 0.575] + [0.9] * 8)

    def adam(module: LightningModule) -> AdamW:
        return AdamW(module.parameters(), lr=LR, betas=(0.9, 0.95))

    recorder, *_ = fit([Phases(phases)], adam)
    assert recorder.groups[0][0]["betas"] == (0.5, 0.95)
    assert recorder.groups[4][0]["betas"] == (0.9, 0.95)
    with pytest.raises(UserError, match="Adagrad has neither momentum nor betas"):
        fit([Phases(phases)], lambda m: Adagrad(m.parameters()))


def test_norm_policies_hold_through_a_fit() -> None:
    phases = {
        "a": {"train": ["head"], "norms": "adapt_statistics", "until": {"steps": 4}},
        "b": {"train": ["all"], "norms": "frozen", "until": {"steps": 4}},
        "c": {"norms": "train"},
    }
    recorder, *_ = fit([Phases(phases)])
    affine = {f"backbone.{n}.1.{k}" for n in range(3) for k in ("weight", "bias")}
    for step, changed in recorder.changed.items():  # validations lie after steps 3, 7 and 11
        assert changed & buffers(0, 1, 2) == (set() if 4 <= step < 8 else buffers(0, 1, 2)), step
        assert recorder.flags[step] & affine == (affine if step >= 8 else set()), step
        drops = {f"backbone.{n}.2" for n in range(3)} & recorder.training[step]
        assert len(drops) == (0 if step < 4 else 3), step


def test_the_budget_counts_optimiser_steps() -> None:
    """Accumulation, and a max_steps that ends before max_epochs does."""
    half = {"head": {"train": ["head"], "until": {"share": 0.5}}, "all": {"train": ["all"]}}
    recorder, *_ = fit([Phases(half)], accumulate_grad_batches=2)
    assert [len(recorder.flags[s]) for s in range(6)] == [2] * 3 + [14] * 3
    recorder, *_ = fit([Phases(half)], max_epochs=5, max_steps=6)
    assert [len(recorder.flags[s]) for s in range(6)] == [2] * 3 + [14] * 3
    epoch = {"head": {"train": ["head"], "until": {"epochs": 1}}, "all": {"train": ["all"]}}
    recorder, *_ = fit([Phases(epoch)], max_epochs=-1, max_steps=6)
    assert [len(recorder.flags[s]) for s in range(6)] == [2] * 4 + [14] * 2
    recorder, *_ = fit([Phases(epoch)], accumulate_grad_batches=2, max_epochs=2)
    assert [len(recorder.flags[s]) for s in range(4)] == [2] * 2 + [14] * 2


PLATEAU = {
    "head": {"train": ["head"], "until": {"plateau": {"patience": 2}}},
    "all": {"train": ["all"], "warmup": {"length": {"steps": 3}}},
}


def test_a_plateau_goes_back_to_the_best_weights() -> None:
    """Scores .1 .5 .4 .5: the second validation is the best, the fourth ends the phase."""

    def configure(module: LightningModule) -> Any:
        return AdamW(module.parameters(), lr=LR)

    phases = Phases(PLATEAU)
    recorder, _, trainer = fit([phases], configure, (0.1, 0.5, 0.4, 0.5, 0.9), max_epochs=6)
    assert [(t.phase, t.step) for t in phases.transitions] == [(0, 16)]
    assert recorder.flags[15] == layers(3)
    assert recorder.flags[16] == layers(0, 1, 2, 3)
    best = recorder.validated[8]
    assert all(torch.equal(recorder.before[16][k], v) for k, v in best.items())
    assert not torch.equal(recorder.before[15]["head.weight"], best["head.weight"])
    assert (recorder.states[15], recorder.states[16]) == (2, 0), "the optimizer starts anew"
    assert trainer.global_step == 24
    warm = [recorder.rates[s]["backbone.0.0.weight"] for s in range(16, 20)]
    assert warm == pytest.approx([LR / 4, LR / 2, LR * 3 / 4, LR])
    assert {recorder.rates[s]["head.weight"] for s in range(24)} == {LR}


def test_a_plateau_without_restore_keeps_the_last_weights() -> None:
    until = {"plateau": {"patience": 1, "restore": False}}
    phases = Phases({**PLATEAU, "head": {"train": ["head"], "until": until}})
    recorder, *_ = fit([phases], scores=(0.5, 0.4))
    assert [(t.phase, t.step) for t in phases.transitions] == [(0, 8)]
    last = recorder.validated[8]
    assert all(torch.equal(recorder.before[8][k], v) for k, v in last.items())


def test_a_plateau_that_never_comes_ends_at_most_then() -> None:
    until = {"plateau": {"at_most": {"epochs": 2}}}
    phases = Phases({**PLATEAU, "head": {"train": ["head"], "until": until}})
    recorder, *_ = fit([phases], scores=(0.1, 0.2, 0.3))
    assert phases.transitions == []
    assert [len(recorder.flags[s]) for s in (7, 8)] == [2, 14]
    assert all(torch.equal(recorder.before[8][k], v) for k, v in recorder.validated[8].items())


def test_a_plateau_watches_what_is_logged() -> None:
    with pytest.raises(RunError, match="watches 'accuracy'"):
        fit([Phases(PLATEAU, monitor="accuracy")])


class Unused(Net):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.backbone.append(nn.Linear(4, 4))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.head(self.backbone[:3](batch[0])).square().mean()


def test_a_parameter_that_gets_no_gradient_ends_the_run() -> None:
    with pytest.raises(RunError, match=r"phase last .* train backbone\.3\.bias and 1 more"):
        fit([Phases(THREE)], net=Unused)
    fit([Phases({"head": {"train": ["head"]}})], net=Unused)  # nobody wants it to train


def test_two_schedules_are_one_too_many() -> None:
    with pytest.raises(UserError, match=r"2 callbacks decide .*GradualUnfreezing, Phases"):
        fit([GradualUnfreezing(), everything()])


class Manual(Net):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.automatic_optimization = False


def test_an_optimizer_without_the_parameters_is_refused() -> None:
    with pytest.raises(UserError, match=r"lacks backbone\.0\.0\.bias and 11 more"):
        fit([Phases(THREE)], lambda m: SGD(m.head.parameters(), lr=LR))
    with pytest.raises(UserError, match="2 optimizers"):
        fit([Phases(THREE)], lambda m: [sgd(m), sgd(m)], net=Manual)


def test_contradictions_are_found_before_the_first_step() -> None:
    late = {"head": {"train": ["head"], "until": {"steps": 12}}, "all": {"train": ["all"]}}
    with pytest.raises(UserError, match="leave none of the budget of 12"):
        fit([Phases(late)])
    with pytest.raises(UserError, match="'layer4' matches no parameter"):
        fit([Phases({"a": {"train": ["layer4"]}})])


def test_the_users_own_groups_and_names_survive(tmp_path: Path) -> None:
    def configure(module: LightningModule) -> Any:
        decayed = [p for p in module.parameters() if p.ndim > 1]
        rest = [p for p in module.parameters() if p.ndim == 1]
        return SGD([{"params": decayed, "name": "decayed", "weight_decay": 0.1},
                    {"params": rest, "name": "rest", "lr": 0.02}], lr=LR)  # fmt: skip

    recorder, module, trainer = fit(
        [Phases({"all": {"train": ["all"], "rates": {"body": 0.5}}}), LearningRateMonitor()],
        configure, logger=CSVLogger(tmp_path),
    )  # fmt: skip
    for name, parameter in module.named_parameters():
        base = LR if parameter.ndim > 1 else 0.02
        expected = base * (1.0 if name.startswith("head") else 0.5)
        assert recorder.rates[0][name] == pytest.approx(expected)
    decay = {id(p): g["weight_decay"] for g in trainer.optimizers[0].param_groups
             for p in g["params"]}  # fmt: skip
    assert all(decay[id(p)] == (0.1 if p.ndim > 1 else 0.0) for p in module.parameters())


def test_a_callback_can_be_used_for_a_second_fit() -> None:
    phases = Phases(PLATEAU)
    first, *_ = fit([phases], scores=(0.5, 0.4, 0.3), max_epochs=4)
    second, *_ = fit([phases], scores=(0.5, 0.4, 0.3), max_epochs=4)
    assert [len(first.flags[s]) for s in range(16)] == [len(second.flags[s]) for s in range(16)]
    assert first.rates == second.rates


RESUMED = {
    "head": {"train": ["head"], "until": {"plateau": {"patience": 1}}},
    "last": {"train": ["last 2"], "lr": 0.05, "until": {"steps": 5},
             "warmup": {"length": {"steps": 3}}},
    "all": {"train": ["all"], "rates": {"body": 0.5}, "norms": "train",
            "momentum": lambda progress: 0.5 + progress / 3},
}  # fmt: skip


@pytest.mark.parametrize("stop", range(1, 20))
def test_a_resumed_fit_is_the_one_that_was_not_interrupted(tmp_path: Path, stop: int) -> None:
    """Interrupted after any step, in every phase: weights, buffers and rates are the same bits."""

    def run(callbacks: list[Callback], checkpoint: str | None = None) -> tuple[Recorder, Net]:
        torch.manual_seed(0)
        module, recorder = (
            Net(with_scheduler(lambda o: StepLR(o, 2, 0.8)), [0.5, 0.4, 0.3, 0.2]),
            Recorder(),
        )
        phases = Phases(RESUMED)
        decay = LayerwiseLRDecay(0.7, "stages")
        trainer = trainer_for(
            [phases, decay, *callbacks, recorder], max_epochs=5, enable_checkpointing=True,
            default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, loader(), loader(), ckpt_path=checkpoint)
        assert [(t.phase, t.step) for t in phases.transitions] == [(0, 8)]
        return recorder, module

    # at the end of an epoch after its validation, whose score the plateau counts
    every = {"every_n_epochs": 1} if stop % BATCHES == 0 else {"every_n_train_steps": stop}
    keep = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, **every)
    whole, expected = run([keep])
    path = next(tmp_path.glob(f"step={stop}.ckpt"))
    torch.load(path, weights_only=True)
    resumed, found = run([], str(path))
    assert sorted(resumed.rates) == list(range(stop, 20))
    for step, rates in resumed.rates.items():
        assert rates == whole.rates[step], step
        assert resumed.flags[step] == whole.flags[step]
        assert resumed.training[step] == whole.training[step]
        assert resumed.groups[step] == whole.groups[step]
    for key, value in expected.state_dict().items():
        assert torch.equal(value, found.state_dict()[key]), key
