"""What a schedule means on a model: who trains when, at which rate, and what contradicts itself."""

import pytest
import torch

from transferlab.backbones.timm import create_backbone, feature_width
from transferlab.errors import UserError
from transferlab.heads.linear import LinearHead
from transferlab.model import TransferModel
from transferlab.parts import Parts
from transferlab.phase_plan import PhasePlan
from transferlab.phase_reading import parse_phases
from transferlab.schedule import Timeline, Transition

STEPS, PER_EPOCH = 100, 10.0


def model_of(name: str = "test_resnet") -> TransferModel:
    with torch.device("meta"):
        backbone = create_backbone(name, {})
        return TransferModel(name, backbone, LinearHead(feature_width(backbone), 3))


class Made:
    """A plan on a model with its timeline; rates at a base rate of 1."""

    def __init__(self, phases: dict, name: str = "test_resnet", groups="stages") -> None:
        parsed = parse_phases(phases)
        self.parts = Parts(model_of(name), groups)
        self.plan = PhasePlan(parsed, self.parts)
        self.timeline = Timeline(parsed, STEPS, PER_EPOCH)

    def rates(self, step: int, base: float = 1.0, scheduled: float = 1.0, transitions=()) -> dict:
        return {
            n: self.plan.rate(n, base, scheduled, step, self.timeline, transitions)
            for n in self.parts.parameters
        }

    def groups(self, step: int, **options) -> list[set[float]]:
        """The rates of each layer group, stem first."""
        rates = self.rates(step, **options)
        return [{round(rates[n], 12) for n in g.parameters} for g in self.parts.groups]


HEAD_THEN_ALL = {"head": {"train": ["head"], "until": {"share": 0.5}}, "all": {"train": ["all"]}}


def test_what_does_not_train_has_no_rate() -> None:
    made = Made(HEAD_THEN_ALL)
    assert made.groups(49, base=0.1) == [{0.0}] * 5 + [{0.1}]
    assert made.groups(50, base=0.1) == [{0.1}] * 6
    assert made.plan.states[0].trained == made.parts.head
    assert made.plan.states[1].added == made.parts.body


def test_the_schedulers_factor_multiplies() -> None:
    assert Made(HEAD_THEN_ALL).groups(60, base=0.2, scheduled=0.25) == [{0.05}] * 6


def test_a_warmup_starts_when_its_part_thaws_and_leaves_others_alone() -> None:
    phases = {**HEAD_THEN_ALL, "all": {"train": ["all"], "warmup": {"length": {"steps": 3}}}}
    made = Made(phases)
    assert [made.groups(50 + s)[0] for s in range(5)] == [{0.25}, {0.5}, {0.75}, {1.0}, {1.0}]
    assert all(made.groups(50 + s)[-1] == {1.0} for s in range(5))


def test_backbone_finetuning_is_a_schedule() -> None:
    """Lightning's BackboneFinetuning: .1, .2, .4, .8 of the head's rate, then aligned with it."""
    made = Made(
        {
            "head": {"train": ["head"], "until": {"epochs": 3}},
            "all": {"train": ["all"], "warmup": {"start": 0.1, "factor": 2}},
        }
    )
    found = [made.groups(10 * epoch, base=0.5)[0] for epoch in range(9)]
    ladder = [0.0] * 3 + [0.05, 0.1, 0.2, 0.4, 0.5, 0.5]
    assert [next(iter(f)) for f in found] == pytest.approx(ladder)
    assert all(made.groups(10 * epoch, base=0.5)[-1] == {0.5} for epoch in range(9))


def test_a_warmup_waits_for_a_plateau() -> None:
    made = Made(
        {
            "head": {"train": ["head"], "until": {"plateau": {}}},
            "all": {"train": ["all"], "warmup": {"length": {"steps": 1}}},
        }
    )
    assert made.groups(99)[0] == {0.0}
    ended = [Transition(0, 30)]
    assert [made.groups(s, transitions=ended)[0] for s in (29, 30, 31)] == [{0.0}, {0.5}, {1.0}]


def test_rates_by_part_hold_until_named_again() -> None:
    made = Made(
        {
            "a": {"train": ["all"], "rates": {"body": 0.1, "stem": 0}, "until": {"steps": 10}},
            "b": {"scale": 0.5, "until": {"steps": 10}},
            "c": {"rates": {"layer4": 1}},
        }
    )
    assert made.groups(0) == [{0.0}, {0.1}, {0.1}, {0.1}, {0.1}, {1.0}]
    assert made.groups(10) == [{0.0}, {0.05}, {0.05}, {0.05}, {0.05}, {0.5}]
    assert made.groups(20) == [{0.0}, {0.1}, {0.1}, {0.1}, {1.0}, {1.0}]


def test_spread_is_fastais_even_ratios() -> None:
    """slice(1e-5, 1e-3) over three groups is 1e-5, 1e-4, 1e-3; even_mults over six alike."""
    made = Made({"a": {"train": ["all"], "spread": 100}})
    found = [next(iter(g)) for g in made.groups(0, base=1e-3)]
    assert found == pytest.approx([1e-5 * 100 ** (k / 5) for k in range(6)])
    with_lr = Made({"a": {"train": ["all"], "lr": 1e-3, "spread": 100}})
    assert [next(iter(g)) for g in with_lr.groups(0, base=7.0)] == pytest.approx(found)


@pytest.mark.parametrize(
    ("name", "groups", "count"), [("test_resnet", "stages", 6), ("resnet50", "blocks", 18)]
)
def test_decay_is_the_ladder(name: str, groups, count: int) -> None:
    found = Made({"a": {"train": ["all"], "decay": 0.75}}, name, groups).groups(0)
    assert [next(iter(g)) for g in found] == pytest.approx(
        [0.75 ** (count - 1 - k) for k in range(count)]
    )


def test_a_final_norm_decays_as_timm_counts_it() -> None:
    rates = Made({"a": {"train": ["all"], "decay": 0.5}}, "convnext_atto").rates(0)
    assert rates["backbone.head.norm.weight"] == 1.0
    assert rates["backbone.stages.3.blocks.1.norm.weight"] == 0.5


def test_an_absolute_rate_takes_the_optimizers_place() -> None:
    made = Made(
        {
            "head": {"train": ["head"], "until": {"steps": 10}},
            "last": {"train": ["last 2"], "lr": 1e-5, "until": {"steps": 10}},
            "all": {"train": ["all"], "lr": {"body": 1e-4}, "rates": {"stem": 0.5}},
        }
    )
    assert made.groups(10, base=0.1) == [{0.0}] * 4 + [{1e-5}, {0.1}]
    assert made.groups(20, base=0.1) == [{5e-5}] + [{1e-4}] * 4 + [{0.1}]
    assert made.groups(20, base=0.1, scheduled=0.5)[1] == {5e-5}


def test_an_absolute_rate_forgets_earlier_factors() -> None:
    made = Made(
        {
            "a": {"train": ["all"], "rates": {"body": 0.1}, "until": {"steps": 10}},
            "b": {"lr": {"layer4": 0.3}},
        }
    )
    assert made.groups(10) == [{0.1}] * 4 + [{0.3}, {1.0}]


def test_a_curve_takes_the_schedulers_place_in_its_phase() -> None:
    made = Made(
        {
            "a": {
                "train": ["head"],
                "until": {"steps": 20},
                "curve": lambda progress: 1 - progress,
            },
            "b": {"train": ["all"]},
        }
    )
    assert [made.groups(s, scheduled=0.3)[-1] for s in (0, 5, 20)] == [{1.0}, {0.75}, {0.3}]


def test_parameters_that_share_a_group_share_every_rate() -> None:
    """A norm policy that stops the norms must not stop the bias that lies beside them."""
    made = Made(
        {
            "a": {"train": ["all"], "until": {"steps": 10}},
            "b": {"norms": "frozen", "until": {"steps": 10}},
            "c": {"norms": "train_affine", "rates": {"layer3": 0.5}},
        }
    )
    kinds: dict = {}
    for name in made.parts.parameters:
        kinds.setdefault(made.plan.signature(name), []).append(name)
    for members in kinds.values():
        for step in (0, 10, 20):
            rates = made.rates(step)
            assert len({rates[n] for n in members}) == 1, members
    assert made.rates(10)["head.bias"] == 1.0
    assert made.rates(10)["backbone.bn1.weight" if "backbone.bn1.weight" in made.parts.parameters
                          else sorted(made.parts.affine())[0]] == 0.0  # fmt: skip


def test_norm_policies_decide_what_trains() -> None:
    affine = Made(HEAD_THEN_ALL).parts.affine()
    for norms, extra in (("follow", set()), ("frozen", set()), ("adapt_statistics", set()),
                         ("train_affine", affine), ("train", affine)):  # fmt: skip
        made = Made({"a": {"train": ["head"], "norms": norms}})
        assert made.plan.states[0].trained == made.parts.head | extra
        whole = Made({"a": {"train": ["all"], "norms": norms}})
        missing = affine if norms in ("frozen", "adapt_statistics") else set()
        assert whole.plan.states[0].trained == set(whole.parts.parameters) - missing


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ({"a": {"train": ["haed"]}}, "phase a: train: 'haed' matches no parameter .nearest: head"),
        ({"a": {"train": ["all"], "rates": {"layer7": 1}}}, "phase a: rates: 'layer7'"),
        ({"a": {"train": ["all"], "lr": {"layer7": 1}}}, "phase a: lr: 'layer7'"),
        ({"a": {"train": ["head"], "rates": {"body": 0.1}}}, r"rates\.body is for a part that no"),
        ({"a": {"train": ["head"], "lr": {"body": 0.1}}}, r"lr\.body is for a part that no phase"),
        ({"a": {}}, "trains nothing"),
        ({"a": {"until": {"steps": 3}}, "b": {"train": ["all"]}}, "phase a trains nothing"),
        ({**HEAD_THEN_ALL, "all": {"train": ["head"]}}, "phase all changes nothing"),
        ({"a": {"train": ["all"], "until": {"steps": 3}}, "b": {}}, "b changes nothing"),
        ({"a": {"train": ["norms"], "norms": "frozen"}}, "phase a trains nothing"),
    ],
)  # fmt: skip
def test_contradictions_are_errors(phases: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Made(phases)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["decay", "spread"])
def test_rates_by_layer_need_more_than_one_group(key: str) -> None:
    class One(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = torch.nn.Flatten(), torch.nn.Linear(2, 2)

    value = {"decay": 0.5, "spread": 2}[key]
    with pytest.raises(UserError, match="one layer group"):
        PhasePlan(parse_phases({"a": {"train": ["all"], key: value}}), Parts(One()))


@pytest.mark.parametrize(
    "second", [{"norms": "frozen"}, {"dropout": "frozen"}, {"scale": 0.5}, {"rates": {"head": 0.5}},
               {"curve": lambda _: 1.0}, {"momentum": lambda _: 0.9}, {"decay": 0.5}],
)  # fmt: skip
def test_a_phase_may_change_something_else_than_what_trains(second: dict) -> None:
    Made({"a": {"train": ["all"], "until": {"steps": 3}}, "b": second})
