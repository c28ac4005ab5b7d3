import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from transferlab.analysis.arms import cells_of
from transferlab.analysis.blame import culprit_of
from transferlab.analysis.facts import compared
from transferlab.analysis.judge import judge
from transferlab.analysis.load import load_study
from transferlab.analysis.tables import runs_csv
from transferlab.analysis.terms import BLAME, FLAGS, REASONS
from transferlab.analysis.words import sentence
from transferlab.stats.verdict import transfer_verdict


def by_arm(directory: Path) -> dict[str, dict[str, Any]]:
    return {verdict["arm"]: verdict for verdict in judge(directory).verdicts}


def one(synthetic: Callable[..., Any], plan: Any, seeds: int = 8) -> dict[str, Any]:
    """The verdict of one arm against scratch."""
    return by_arm(synthetic(seeds=seeds).write({5: [synthetic.SCRATCH, plan]}))[plan.id]


def test_one_arm_is_judged_exactly_as_the_function_judges_its_predictions(
    synthetic: Callable[..., Any],
) -> None:
    directory = synthetic().write({5: synthetic.FAMILY[:2]})
    verdict = by_arm(directory)["fine_tune from glyphs"]
    study = json.loads((directory / "study.json").read_text())

    def correct(arm: dict[str, Any]) -> Any:
        rows = []
        for entry in arm["runs"]:
            path = directory / "runs" / entry["run_id"] / "predictions.parquet"
            table = pd.read_parquet(path).sort_values("item_id")
            rows.append((table["label"] == table["prediction"]).to_numpy())
        return np.stack(rows)

    scratch, transfer = map(correct, study["cells"][0]["arms"])
    expected = transfer_verdict(transfer, scratch)
    assert verdict["verdict"] == expected.verdict
    assert verdict["ci95"] == pytest.approx(list(expected.ci95), abs=1e-12)
    assert verdict["p_sign_holm"] == pytest.approx(expected.p_sign)


@pytest.mark.parametrize(("own", "scratch", "said"), [(11, 1, True), (1, 1, False), (6, 6, False)])
def test_an_arm_whose_runs_choose_on_validation_is_said_to(
    own: int, scratch: int, said: bool, synthetic: Callable[..., Any]
) -> None:
    base = synthetic.Plan("scratch", "none", "scratch", "scratch", run={"n_trials": scratch})
    arm = synthetic.Plan("arm", shift=1.0, run={"n_trials": own})
    directory = synthetic().write({5: [base, arm]})
    verdict = by_arm(directory)["arm"]
    assert verdict["verdict"] == "positive"
    assert ("more_trials" in verdict["flags"]) == said
    study = load_study(directory)
    table = compared(cells_of(study)[0])
    column = table.head.index("trials in a run")
    assert [row[column] for row in table.rows] == [str(scratch), str(own)]
    rows = list(csv.DictReader(io.StringIO(runs_csv(study))))
    assert {row["n_trials"] for row in rows} == {str(scratch), str(own)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trials": 4}, "unequal_trials"),
        ({"tuning_seeds": (3, 10000)}, "tuning_seeds_overlap"),
        ({"run": {"budget_steps": 300}}, "unequal_steps"),
        ({"run": {"test_ids_sha256": "u" * 64}}, "different_test_items"),
        ({"run": {"split_sha256": "u" * 64}}, "different_split"),
        ({"run": {"preprocessing_sha256": "u" * 64}}, "different_preprocessing"),
        ({"run": {"image_size": 64}}, "different_image_size"),
        ({"run": {"data_fingerprint": "u" * 64}}, "different_data"),
        ({"run": {"backbone": "other"}}, "different_backbone"),
        ({"run": {"metric": "macro_recall"}}, "different_metric"),
        ({"run": {"classes": ["1", "0", "2", "3", "4"]}}, "different_classes"),
    ],
)
def test_unlike_arms_are_not_assessable(
    changes: dict[str, Any], reason: str, synthetic: Callable[..., Any]
) -> None:
    verdict = one(synthetic, synthetic.Plan("arm", shift=-1.0, **changes), seeds=4)
    assert (verdict["verdict"], verdict["reason"]) == ("not_assessable", reason)
    assert verdict["delta"] is None
    assert "can't be judged" in verdict["sentence"]
    assert REASONS[reason] in verdict["sentence"]


def test_without_scratch_nothing_can_be_judged(synthetic: Callable[..., Any]) -> None:
    verdict = by_arm(synthetic().write({5: [synthetic.Plan("arm", shift=-1.0)]}))["arm"]
    assert (verdict["verdict"], verdict["reason"]) == ("not_assessable", "no_scratch_arm")


def test_test_items_are_compared_and_not_only_their_stated_hash(
    synthetic: Callable[..., Any],
) -> None:
    directory = synthetic().write({5: synthetic.FAMILY[:2]})
    study = json.loads((directory / "study.json").read_text())
    run_id = study["cells"][0]["arms"][1]["runs"][0]["run_id"]
    path = directory / "runs" / run_id / "predictions.parquet"
    table = pd.read_parquet(path)
    table.loc[0, "item_id"] = "another"
    table.to_parquet(path)
    assert by_arm(directory)["fine_tune from glyphs"]["reason"] == "different_test_items"


def test_a_member_that_cannot_be_judged_still_counts_in_the_family(
    synthetic: Callable[..., Any],
) -> None:
    plans = synthetic.FAMILY[:2]
    alone = by_arm(synthetic("a").write({5: plans}))["fine_tune from glyphs"]
    extra = synthetic.Plan("odd", trials=1)
    # The same folder name gives the same simulated runs.
    beside = by_arm(synthetic("b/../a2").write({5: [*plans, extra]}))["fine_tune from glyphs"]
    assert alone["family"]["m"] == 1
    assert beside["family"]["m"] == 2
    assert alone["p_sign_holm"] == pytest.approx(alone["p_sign"])
    assert beside["p_sign_holm"] == pytest.approx(2 * beside["p_sign"])


def test_missing_pairs_are_dropped_and_counted(synthetic: Callable[..., Any]) -> None:
    verdict = one(synthetic, synthetic.Plan("arm", shift=0.6, missing=(2,)))
    assert (verdict["verdict"], verdict["n_pairs"]) == ("positive", 7)
    assert [key["seed"] for key in verdict["replicate_keys"]] == [0, 1, 3, 4, 5, 6, 7]
    assert verdict["failures"]["transfer"] == {
        "planned": 8,
        "done": 7,
        "diverged": 0,
        "missing": 1,
    }
    assert "missing_pairs" in verdict["flags"]


def test_too_few_pairs_are_undecided(synthetic: Callable[..., Any]) -> None:
    verdict = one(synthetic, synthetic.Plan("arm", shift=0.6, missing=(2, 5)))
    assert (verdict["verdict"], verdict["reason"]) == ("inconclusive", "missing_runs")
    assert verdict["delta"] > 0


def test_a_failed_run_is_missing_and_a_diverged_one_an_outcome(
    synthetic: Callable[..., Any],
) -> None:
    verdict = one(synthetic, synthetic.Plan("arm", shift=0.6, diverged=(2,)))
    assert verdict["verdict"] == "positive"
    assert verdict["failures"]["transfer"]["diverged"] == 1
    assert verdict["failures"]["fisher_p"] == pytest.approx(1.0)
    assert "diverged_runs" in verdict["flags"]
    assert verdict["sensitivity"]["n_pairs"] == 8
    assert verdict["sensitivity"]["delta"] < verdict["delta"], "a diverged run counts as a guess"


def test_an_arm_that_keeps_diverging_is_unstable(synthetic: Callable[..., Any]) -> None:
    verdict = one(synthetic, synthetic.Plan("arm", shift=0.6, diverged=(0, 2, 4)))
    assert (verdict["verdict"], verdict["reason"]) == ("inconclusive", "unstable_arm")
    assert "3 of 8 transfer runs diverged" in verdict["sentence"]
    assert {"unstable_arm", "sensitive_to_failures"} <= set(verdict["flags"])


@pytest.mark.parametrize("shift", [0.6, -0.6])
@pytest.mark.parametrize("where", ["transfer", "scratch", "untuned"])
def test_a_rate_that_was_not_settled_withholds_what_a_better_one_could_overturn(
    where: str, shift: float, synthetic: Callable[..., Any]
) -> None:
    scratch = synthetic.Plan("scratch", "none", "scratch", "scratch", at_edge=where == "scratch")
    plan = synthetic.Plan("arm", shift=shift, at_edge=where == "transfer")
    directory = synthetic().write({5: [scratch, plan]}, tuned=where != "untuned")
    verdict = by_arm(directory)["arm"]
    word = "positive" if shift > 0 else "negative"
    if (where, word) in (("transfer", "positive"), ("scratch", "negative")):
        assert (verdict["verdict"], verdict["withheld"]) == (word, None)
        assert "rate_at_edge" in verdict["flags"]
        return
    reason = "untuned" if where == "untuned" else "rate_at_edge"
    assert (verdict["verdict"], verdict["reason"]) == ("inconclusive", reason)
    assert verdict["withheld"] == word
    assert "would have read" in verdict["sentence"]
    assert verdict["blame"] is None


@pytest.mark.parametrize("where", ["transfer", "scratch"])
def test_equivalence_needs_both_rates_settled(where: str, synthetic: Callable[..., Any]) -> None:
    scratch = synthetic.Plan("scratch", "none", "scratch", "scratch", at_edge=where == "scratch")
    plan = synthetic.Plan("arm", shift=0.0, at_edge=where == "transfer")
    verdict = by_arm(synthetic().write({5: [scratch, plan]}, margin=0.2))["arm"]
    assert (verdict["verdict"], verdict["withheld"]) == ("inconclusive", "equivalent")
    assert verdict["reason"] == "rate_at_edge"


def test_few_replicates_are_flagged_and_one_gives_no_interval(
    synthetic: Callable[..., Any],
) -> None:
    plans = [synthetic.SCRATCH, synthetic.Plan("arm", shift=1.0)]
    few = by_arm(synthetic("four", seeds=4).write({5: plans}))["arm"]
    assert few["verdict"] == "positive"
    assert "few_replicates" in few["flags"]
    single = by_arm(synthetic("one", seeds=1).write({5: plans}))["arm"]
    assert (single["verdict"], single["reason"]) == ("inconclusive", "single_replicate")
    assert single["ci95"] is None


def test_planned_looks_share_alpha_and_an_extension_waits_for_its_runs(
    synthetic: Callable[..., Any],
) -> None:
    rest = (6, 7)
    plans = [
        synthetic.Plan("scratch", "none", "scratch", "scratch", missing=rest),
        synthetic.Plan("arm", shift=0.6, missing=rest),
    ]
    verdict = by_arm(synthetic().write({5: plans}, looks=[5, 8]))["arm"]
    assert verdict["look"] == {"index": 1, "of": 2, "seeds": 5, "alpha": 0.025}
    assert verdict["n_pairs"] == 5
    full = by_arm(synthetic("full").write({5: synthetic.FAMILY}, looks=[5, 8]))
    assert full["fine_tune from glyphs"]["look"]["seeds"] == 8


def test_macro_recall_weighs_classes_alike(synthetic: Callable[..., Any]) -> None:
    changes = {"run": {"metric": "macro_recall"}}
    plans = [
        synthetic.Plan("scratch", "none", "scratch", "scratch", **changes),
        synthetic.Plan("arm", shift=0.6, **changes),
    ]
    verdict = by_arm(synthetic().write({5: plans}, metric="macro_recall"))["arm"]
    assert verdict["metric"] == "macro_recall"
    assert "test macro recall" in verdict["sentence"]
    mean = sum(verdict["per_replicate_delta"]) / verdict["n_pairs"]
    assert verdict["delta"] == pytest.approx(mean, abs=1e-12)


def test_groups_of_items_widen_the_interval(synthetic: Callable[..., Any]) -> None:
    directory = synthetic().write({5: synthetic.FAMILY[:2]})
    plain = by_arm(directory)["fine_tune from glyphs"]
    for path in directory.glob("runs/*/predictions.parquet"):
        table = pd.read_parquet(path)
        # Items of like ability together, so that a group shares its luck.
        order = np.argsort(np.argsort(synthetic().ability))
        number = table["item_id"].str.removeprefix("item-").astype(int)
        table["group"] = [f"patient {order[index] // 30}" for index in number]
        table.to_parquet(path)
    grouped = by_arm(directory)["fine_tune from glyphs"]
    assert grouped["delta"] == pytest.approx(plain["delta"])
    assert grouped["test_part_B"] > 2 * plain["test_part_B"]


def test_frozen_losses_are_split_between_source_and_freezing(
    synthetic: Callable[..., Any],
) -> None:
    verdicts = by_arm(synthetic(items=1500).write({5: synthetic.FAMILY}))
    glyphs = verdicts["feature_extraction from glyphs"]
    parts = glyphs["control"]
    total = parts["source_value"]["delta"] + parts["freezing_cost"]["delta"]
    assert total == pytest.approx(glyphs["delta"], abs=1e-12)
    assert glyphs["blame"]["culprit"] == "strategy"
    assert "strategy is to blame" in glyphs["sentence"]
    assert verdicts["feature_extraction from noise"]["blame"]["culprit"] == "both"
    assert verdicts["fine_tune from glyphs"]["control"] is None
    assert verdicts["fine_tune from glyphs"]["blame"] is None


def test_a_loss_without_its_control_names_nobody(synthetic: Callable[..., Any]) -> None:
    verdict = one(synthetic, synthetic.Plan("arm", shift=-1.0))
    assert verdict["verdict"] == "negative"
    assert verdict["blame"]["culprit"] == "cannot_tell"
    assert "can't be told" in verdict["sentence"]


def test_where_scratch_is_the_control_the_source_is_to_blame(
    synthetic: Callable[..., Any],
) -> None:
    verdict = one(synthetic, synthetic.Plan("arm", shift=-1.0, control="scratch"))
    assert verdict["blame"]["culprit"] == "source"


@pytest.mark.parametrize(
    ("value", "value_p", "cost", "cost_p", "culprit"),
    [
        (-0.1, 0.001, 0.0, 0.9, "source"),
        (-0.1, 0.001, 0.1, 0.001, "source"),
        (0.0, 0.9, -0.1, 0.001, "strategy"),
        (0.05, 0.001, -0.1, 0.001, "strategy"),
        (-0.1, 0.001, -0.1, 0.001, "both"),
        (-0.01, 0.2, -0.01, 0.2, "cannot_tell"),
        (-0.01, None, -0.01, 0.2, "cannot_tell"),
    ],
)
def test_blame(
    value: float, value_p: float | None, cost: float, cost_p: float, culprit: str
) -> None:
    parts = {
        "source_value": {"delta": value, "p_sign": value_p},
        "freezing_cost": {"delta": cost, "p_sign": cost_p},
    }
    assert culprit_of(parts, 0.05)[0] == culprit
    assert culprit_of(None, 0.05)[0] == "cannot_tell"


def test_every_reason_and_flag_that_occurs_is_explained(synthetic: Callable[..., Any]) -> None:
    plans = [
        *synthetic.FAMILY,
        synthetic.Plan("edge", shift=1, at_edge=True),
        synthetic.Plan("unstable", diverged=(1, 2, 3)),
        synthetic.Plan("few", missing=(1, 2, 3, 4, 5)),
        synthetic.Plan("batch", run={"batch_size": 64, "head": "mlp"}),
    ]
    verdicts = by_arm(synthetic().write({5: plans}, scope="new_target_data"))
    for verdict in verdicts.values():
        assert set(verdict["flags"]) <= FLAGS.keys()
        assert verdict["reason"] is None or verdict["reason"] in REASONS
        assert verdict["scope"] == "new_target_data"
        assert sentence(verdict) == verdict["sentence"]
    assert {"unequal_batch_size", "different_head"} <= set(verdicts["batch"]["flags"])
    assert all("{why}" in text for key, text in BLAME.items() if key == "cannot_tell")
