"""The words themselves: verdicts, reasons, flags, who is to blame, what strategies are called."""

WORDS = {
    "positive": "helps",
    "negative": "hurts",
    "equivalent": "no difference that matters",
    "inconclusive": "undecided",
    "not_assessable": "can't be judged",
}

CONTRAST_WORDS = {**WORDS, "positive": "better", "negative": "worse"}
"""The words where an arm is compared with another one than scratch."""

SOURCE_WORDS = {
    "positive": "Transfer from {source} helps with the strategy that validation chooses, so the "
    "harm is this strategy's.",
    "negative": "Negative transfer from {source}: it hurts with the strategy that validation "
    "chooses, too.",
    "equivalent": "With the strategy that validation chooses, {source} makes no difference that "
    "matters, so the harm is this strategy's.",
    "inconclusive": "Whether {source} hurts with the strategy that validation chooses is "
    "undecided.",
    "not_assessable": "What {source} comes to with the strategy that validation chooses can't be "
    "judged.",
}

REASONS = {
    "no_scratch_arm": "there is no arm trained from scratch to compare with; declare one",
    "unequal_trials": "the two arms were not tuned with the same number of trials",
    "unequal_steps": "the two arms were not given the same number of optimiser steps",
    "tuning_seeds_overlap": "seeds that were tuned on were replicated on as well, so the luck of "
    "tuning would count as an effect",
    "different_backbone": "the two arms use different backbones",
    "different_data": "the two arms saw different versions of the data",
    "different_test_items": "the runs were scored on different test images",
    "different_split": "the two runs of a pair were trained on different splits",
    "different_preprocessing": "the two arms preprocess images differently",
    "different_image_size": "the two arms see images of different size",
    "different_metric": "the two arms were scored by different metrics",
    "different_classes": "the two arms name or order the classes differently",
    "missing_runs": "fewer than 80 % of the planned pairs are complete; run the study's command "
    "again to add the missing ones",
    "no_logits": "the predictions keep no scores of all classes (they do up to 100 classes), which "
    "this metric needs",
    "scope_not_estimable": "every replicate saw the same target images, so nothing tells how "
    "another draw of them would turn out; use target.shots or target.fraction, or claim less with "
    "scope this_pool",
    "single_replicate": "one pair alone gives no interval; add seeds",
    "single_item": "a class has only one test image, or one group of them, and one alone shows no "
    "spread; use a larger test split",
    "degenerate": "every seed gave the same differences, so the seeds do nothing and the interval "
    "would be a false certainty",
    "identical_predictions": "both arms gave the same answer on every test image",
    "unstable_arm": "one arm's runs diverge much more often than the other's, so the mean of those "
    "that survived says little",
    "rate_at_edge": "an arm's best learning rate lies at the end of its grid or range, and a "
    "better one beyond it could overturn this; widen it",
    "few_tuning_seeds": "the settings were tuned once, on fewer than three seeds, and serve every "
    "replicate: their luck would count as an effect; tune on three seeds, or in each replicate",
    "untuned": "no arm was tuned, so a difference may only be one of learning rates that suit one "
    "arm more; tune the study to get a verdict",
}

FLAGS = {
    "few_replicates": "fewer than 5 pairs: the interval holds, but it is wide and rests on little",
    "rate_at_edge": "an arm's best learning rate lies at the end of its grid or range",
    "untuned": "learning rates were set, not tuned",
    "few_tuning_seeds": "settings that serve every replicate were tuned on fewer than three seeds",
    "validation_shared": "every replicate was tuned on the same validation images, so the luck of "
    "these is in all of them alike",
    "budget_at_edge": "an arm's best budget is the longest or the shortest one that it was offered",
    "strategy_chosen": "the strategy was chosen on validation in each replicate, so this side had "
    "more trials than scratch",
    "accelerates_only": "it helps at equal steps only: with each arm's own best budget, transfer "
    "makes no difference that matters",
    "budget_dependent": "the verdict at equal steps and the one at each arm's own best budget "
    "differ",
    "detectable_sign": "the difference is real but too small to matter: it lies inside the margin",
    "maybe_within_margin": "the direction is clear, the size is not: it may lie inside the margin",
    "control_at_edge": "the control's best learning rate lies at the end of its grid or range, so "
    "who is to blame is less sure",
    "unstable_arm": "one arm's runs diverged much more often than the other's",
    "diverged_runs": "some runs diverged; their pairs are left out of the interval",
    "sensitive_to_failures": "counting the diverged runs at chance level would change the verdict",
    "missing_pairs": "some planned pairs are missing",
    "validation_assumed": "the rates were tuned on more validation labels than a target this small "
    "would have in practice",
    "margin_below_test_floor": "the margin is finer than this test set can resolve with any number "
    "of seeds",
    "margin_below_one_item": "the margin is smaller than one test image",
    "equal_run_means": "every pair has the same gain by chance, so their spread was bounded from "
    "below by the noise of the images",
    "unequal_batch_size": "the arms' tuned batch sizes differ, so equal steps saw unequal images",
    "different_head": "the two arms have different heads, which may be part of the difference",
    "more_trials": "the arm's runs chose among more sets of weights on validation than scratch's "
    "did: what that choice gains is part of the difference, and its cost part of the arm's",
    "target_data_limits": "more seeds cannot settle this for new target data: the replicates' "
    "images overlap too much",
    "test_set_limits": "more seeds cannot settle this: the test set is too small",
}

BLAME = {
    "source": "The source is to blame: frozen random weights do better than frozen weights from "
    "{source}, and freezing alone costs nothing that shows.",
    "strategy": "The strategy is to blame, not the source: freezing alone, with random weights, "
    "already costs accuracy, and the weights from {source} do no worse than random ones.",
    "both": "Both are to blame: freezing costs accuracy by itself, and the weights from {source} "
    "are worse than random ones.",
    "source_unfrozen": "The source is to blame: the control trains the same layers from random "
    "weights.",
    "cannot_tell": "Whether the source or the strategy is to blame can't be told: {why}.",
}

UP = {"positive": "raises", "negative": "lowers"}
DOWN = {"positive": "improves", "negative": "worsens"}
VERBS = {
    **dict.fromkeys(("accuracy", "macro_recall", "auroc"), UP),
    **dict.fromkeys(("log_loss", "brier"), DOWN),
}
"""What a gain does to a score: a lower loss is a gain, which "raises" would turn round."""

STRATEGIES = {
    "fine_tune": "fine-tuning",
    "feature_extraction": "feature extraction",
    "gradual_unfreezing": "gradual unfreezing",
    "layer_decay": "fine-tuning with layer decay",
    "lp_ft": "linear probing then fine-tuning",
    "scratch": "training",
}
