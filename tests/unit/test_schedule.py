"""The schedule language: every bad input is one line, and phases lie where the laws say."""

from itertools import pairwise

import pytest

from transferlab.errors import UserError
from transferlab.phase_reading import parse_phases, parse_span
from transferlab.schedule import (
    Phase,
    Plateau,
    Span,
    Timeline,
    Transition,
    Warmup,
    plateaued,
    warmup_factor,
)


def phase(**settings) -> dict:
    return {"a": {"train": ["head"], **settings}, "b": {"train": ["all"]}}


BAD = [
    ({}, "none given"),
    (["head"], "expected a mapping"),
    ({"a": 3}, r"phases\.a=3: expected a mapping"),
    ({"a": {"trian": ["head"]}}, r"unknown key phases\.a\.trian \(nearest: train\)"),
    ({"a": {"name": "x"}}, r"unknown key phases\.a\.name"),
    (phase(train=1.5), r"phases\.a\.train=1\.5: expected a list"),
    (phase(train={"head": 1}), r"train=.*expected a list"),
    (phase(train=[True]), "True names no part"),
    (phase(train=[["head"]]), "names no part"),
    (phase(until=3), r"phases\.a\.until=3: expected \{steps"),
    (phase(until="1 epoch"), "expected {steps"),
    (phase(until={}), "give one of steps, epochs and share"),
    (phase(until={"steps": 3, "share": 0.1}), "give one of"),
    (phase(until={"step": 3}), r"unknown key phases\.a\.until\.step \(nearest: steps"),
    (phase(until={"steps": 0}), "whole number above 0"),
    (phase(until={"steps": -1}), "whole number above 0"),
    (phase(until={"steps": 2.5}), "whole number above 0"),
    (phase(until={"steps": "many"}), r"until\.steps='many': expected a number"),
    (phase(until={"steps": True}), "expected a number"),
    (phase(until={"epochs": float("nan")}), "expected a number"),
    (phase(until={"epochs": float("inf")}), "expected a number"),
    (phase(until={"epochs": 0}), "above 0"),
    (phase(until={"share": 1.5}), r"in \(0, 1\]"),
    (phase(until={"share": 0}), r"in \(0, 1\]"),
    (phase(until={"plateau": {"patiance": 2}}), r"plateau\.patiance \(nearest: patience"),
    (phase(until={"plateau": 3}), r"until\.plateau=3: expected a mapping"),
    (phase(until={"plateau": {}, "steps": 3}), "unknown key"),
    (phase(until={"plateau": {"patience": 0}}), "at least 1"),
    (phase(until={"plateau": {"patience": 1.5}}), "at least 1"),
    (phase(until={"plateau": {"patience": "two"}}), "at least 1"),
    (phase(until={"plateau": {"min_delta": -1}}), "min_delta"),
    (phase(until={"plateau": {"min_delta": "x"}}), "min_delta"),
    (phase(until={"plateau": {"restore": "no"}}), "expected true or false"),
    (phase(until={"plateau": {"at_most": {"plateau": {}}}}), r"unknown key .*at_most\.plateau"),
    (phase(until={"plateau": {"at_most": {"share": 2}}}), r"at_most\.share"),
    (phase(warmup=3), r"warmup=3: expected a mapping"),
    (phase(warmup={"lenght": {}}), "nearest: length"),
    (phase(warmup={"length": {"share": 0}}), r"warmup\.length\.share"),
    (phase(warmup={"start": 1}), r"in \[0, 1\)"),
    (phase(warmup={"start": -0.1}), r"in \[0, 1\)"),
    (phase(warmup={"start": "low"}), "expected a number"),
    (phase(warmup={"factor": 2}), "never reach"),
    (phase(warmup={"start": 0.1, "factor": 1}), "never reach"),
    (phase(warmup={"start": 0.1, "factor": 2, "length": {"steps": 3}}), "Drop one"),
    (phase(warmup={"every": {"steps": 3}}), "Add factor"),
    (phase(rates=[0.1]), r"rates=\[0\.1\]: expected a mapping"),
    (phase(rates={"body": "low"}), r"rates\.body='low': expected a number"),
    (phase(rates={"body": -0.1}), "0 or more"),
    (phase(rates={True: 0.1}), "names no part"),
    (phase(lr="fast"), r"lr='fast': expected a number"),
    (phase(lr=0), r"in \(0, inf\)"),
    (phase(lr=float("nan")), "expected a number"),
    (phase(lr={"head": -1}), r"lr\.head=-1"),
    (phase(lr=[1]), "expected a number"),
    (phase(scale=0), r"phases\.a\.scale"),
    (phase(decay=1), r"decay=1.*in \(0, 1\)"),
    (phase(decay=0), "decay"),
    (phase(decay="x"), "decay"),
    (phase(spread=1), r"spread=1.*in \(1, inf\)"),
    (phase(spread=float("nan")), "spread"),
    (phase(norms="freeze"), r"norms=freeze \(nearest: frozen\)"),
    (phase(dropout="off"), r"dropout=off \(valid: follow, frozen, train\)"),
    (phase(norms=["frozen"]), "norms"),
    (phase(rebase="yes"), r"rebase='yes': expected true or false"),
    (phase(curve="one_cycle"), r"curve='one_cycle': expected an object"),
    (phase(momentum=0.9), r"momentum=0\.9: expected an object"),
]


@pytest.mark.parametrize(("nodes", "message"), BAD, ids=range(len(BAD)))
def test_bad_input_is_one_line(nodes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_phases(nodes)
    assert "\n" not in str(caught.value)


def test_a_phase_reads_as_written() -> None:
    (first, second) = parse_phases(
        {
            "head": {
                "train": "head", "until": {"plateau": {"patience": 2, "at_most": {"epochs": 3}}},
                "lr": {"head": 1, -1: 0.5}, "norms": "train", "dropout": None,
            },
            "all": {
                "train": ["all", 3], "rates": {"body": 0}, "decay": 0.5,
                "warmup": {"length": {"share": 0.1}, "start": 0.2},
            },
        }
    )  # fmt: skip
    assert first == Phase(
        "head", ("head",), Plateau(2, at_most=Span(epochs=3)), lr={"head": 1, -1: 0.5},
        norms="train",
    )  # fmt: skip
    assert second == Phase(
        "all", ("all", 3), None, rates={"body": 0}, decay=0.5,
        warmup=Warmup(Span(share=0.1), start=0.2),
    )  # fmt: skip
    assert parse_phases({"a": None}) == [Phase("a")]
    assert parse_span(Span(steps=3), "x") == Span(steps=3)


@pytest.mark.parametrize(
    ("span", "steps"),
    [(Span(steps=7), 7), (Span(share=0.25), 25), (Span(share=1), 100), (Span(epochs=2), 25),
     (Span(epochs=0.5), 6), (Span(share=0.001), 1), (Span(epochs=0.01), 1)],
)  # fmt: skip
def test_lengths_in_steps(span: Span, steps: int) -> None:
    assert span.resolve(100, 12.5, "x") == steps


@pytest.mark.parametrize(
    "span", [Span(), Span(steps=1, share=0.5), Span(steps=0), Span(share=1.1), Span(epochs=-1),
             Span(epochs=float("nan")), Span(epochs=float("inf"))],
)  # fmt: skip
def test_spans_that_mean_no_length_are_refused(span: Span) -> None:
    with pytest.raises(UserError, match="here"):
        span.resolve(100, 10, "here")


def timeline(*untils, steps: int = 100, per_epoch: float = 10) -> Timeline:
    phases = [Phase(f"p{i}", ("all",), until) for i, until in enumerate([*untils, None])]
    return Timeline(phases, steps, per_epoch)


def test_starts_in_every_unit() -> None:
    assert timeline(Span(share=0.5), Span(steps=7), Span(epochs=1.5)).starts() == [0, 50, 57, 72]


@pytest.mark.parametrize(
    "made",
    [timeline(), timeline(Span(share=0.3), Span(epochs=2)), timeline(Span(steps=1), Span(steps=1)),
     timeline(Plateau(), Span(steps=10)), timeline(Plateau(at_most=Span(steps=20)), Plateau())],
)  # fmt: skip
@pytest.mark.parametrize(
    "transitions", [(), (Transition(0, 13),), (Transition(0, 13), Transition(1, 40))]
)
def test_phases_follow_each_other_and_are_a_pure_function(made: Timeline, transitions) -> None:
    found = [made.phase_at(step, transitions) for step in range(100)]
    assert found == [made.phase_at(step, transitions) for step in range(100)]
    assert found[0] == 0
    assert all(later - earlier in (0, 1) for earlier, later in pairwise(found))
    starts = made.starts(transitions)
    known = [start for start in starts if start is not None]
    assert known == sorted(known)
    for index, start in enumerate(starts):
        if start is not None and start < 100:
            assert found[start] == index
            assert start == 0 or found[start - 1] == index - 1
    for step in range(100):
        progress = made.progress(step, transitions)
        assert 0 <= progress < 1
        if step and found[step] == found[step - 1]:
            assert progress > made.progress(step - 1, transitions)
        else:
            assert progress == 0


def test_what_follows_a_plateau_is_unknown_until_it_ends() -> None:
    made = timeline(Plateau(), Span(steps=10))
    assert made.starts() == [0, None, None]
    assert made.phase_at(99) == 0
    assert made.starts([Transition(0, 30)]) == [0, 30, 40]
    assert [made.phase_at(s, [Transition(0, 30)]) for s in (29, 30, 39, 40)] == [0, 1, 1, 2]
    bound = timeline(Plateau(at_most=Span(share=0.2)), Span(steps=10))
    assert bound.starts() == [0, 20, 30]
    assert bound.starts([Transition(0, 12)]) == [0, 12, 22]


def test_progress_stays_at_its_end_beyond_the_budget() -> None:
    assert timeline(Span(steps=50)).progress(130) == 1.0


@pytest.mark.parametrize(
    ("untils", "last", "message"),
    [
        ([Span(steps=100)], None, "leave none of the budget of 100"),
        ([Span(share=0.5), Span(share=0.5)], None, "leave none"),
        ([Span(epochs=9), Span(steps=20)], None, "phases of 110 optimiser steps"),
        ([Plateau(), Span(steps=99)], None, "leave none"),
        ([None], None, "has no end"),
        ([Span(steps=1)], Span(steps=3), "is the last"),
        ([], Plateau(), "is the last"),
    ],
)
def test_contradictions_are_errors(untils, last, message: str) -> None:
    phases = [Phase(f"p{i}", ("all",), until) for i, until in enumerate([*untils, last])]
    with pytest.raises(UserError, match=message) as caught:
        Timeline(phases, 100, 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("scores", "patience", "delta", "ended"),
    [
        ([], 1, 0, False), ([0.5], 1, 0, False), ([0.5, 0.5], 1, 0, True),
        ([0.5, 0.6], 1, 0, False), ([0.5, 0.4], 2, 0, False), ([0.5, 0.4, 0.5], 2, 0, True),
        ([0.5, 0.4, 0.6], 2, 0, False), ([0.5, 0.55], 1, 0.1, True), ([0.5, 0.65], 1, 0.1, False),
        ([0.5, 0.55, 0.65], 2, 0.1, False), ([float("nan")], 1, 0, True), ([-3.0], 1, 0, False),
        ([-3.0, -2.0, -2.5], 1, 0, True),
    ],
)  # fmt: skip
def test_plateaus(scores, patience: int, delta: float, ended: bool) -> None:
    assert plateaued(scores, patience, delta) is ended


def test_plateau_laws() -> None:
    rising = [i / 10 for i in range(10)]
    assert not any(plateaued(rising[:n], 1) for n in range(11))
    for patience in (1, 2, 5):
        flat = [0.5] * 10
        assert [plateaued(flat[:n], patience) for n in range(1, 11)] == [
            n > patience for n in range(1, 11)
        ]


def test_without_a_warmup_the_rate_is_whole() -> None:
    assert warmup_factor(None, 0, timeline(), "x") == 1.0


def test_a_linear_warmup_moves_at_once_and_reaches_the_peak_after_its_length() -> None:
    warmup = Warmup(Span(steps=4))
    found = [warmup_factor(warmup, since, timeline(), "x") for since in range(7)]
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1])
    found = [warmup_factor(Warmup(Span(steps=4), 0.5), s, timeline(), "x") for s in range(6)]
    assert found == pytest.approx([0.6, 0.7, 0.8, 0.9, 1, 1])
    assert warmup_factor(Warmup(), 0, timeline(), "x") == pytest.approx(1 / 11)  # a tenth


def test_a_warmup_by_a_factor_is_that_of_backbone_finetuning() -> None:
    """Lightning 2.6: 0.1 of the head's rate, doubled every epoch, then aligned."""
    warmup = parse_phases(phase(warmup={"start": 0.1, "factor": 2}, until={"share": 0.5}))[0].warmup
    found = [warmup_factor(warmup, 10 * epoch, timeline(), "x") for epoch in range(6)]
    assert found == pytest.approx([0.1, 0.2, 0.4, 0.8, 1, 1])
    within = {warmup_factor(warmup, since, timeline(), "x") for since in range(10, 20)}
    assert within == {0.2}
