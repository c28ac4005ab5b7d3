"""What settings with a few allowed values may be."""

CHOICES: dict[str, tuple[str, ...]] = {
    "source.kind": ("dataset", "published", "checkpoint", "none"),
    "source.join": ("disjoint", "by_name"),
    "strategy.init": ("source", "random"),
    "strategy.groups": ("stages", "blocks"),
    "checkpoint.keep": ("best", "last", "all", "none"),
    "checkpoint.select": ("last", "best"),
    "retry": ("failed",),
    "metric.name": ("auto", "accuracy", "macro_recall"),
    "target.near_duplicates": ("refuse", "warn", "ignore"),
    "trainer.energy": ("off", "estimate", "codecarbon"),
    "trainer.data": ("auto", "device", "stream"),
    "backbone.interpolation": ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"),
    "study.verdict.metric": ("auto", "accuracy", "macro_recall", "auroc", "log_loss", "brier"),
    "study.verdict.scope": ("this_pool", "new_target_data"),
    "study.tune.per": ("study", "replicate"),
    "study.tune.sampler": ("tpe", "random"),
    "study.tune.prune": ("median",),
}
for _data in ("source", "target"):
    CHOICES |= {
        f"{_data}.half": ("first", "second"),
        f"{_data}.corruption": ("none", "random_labels", "permuted_pixels", "noise"),
        f"{_data}.duplicates": ("refuse", "drop"),
        f"{_data}.images.more_than_8_bits": ("refuse", "scale"),
        f"{_data}.images.alpha": ("refuse", "drop", "white"),
        f"{_data}.images.cmyk": ("refuse", "convert"),
        f"{_data}.images.broken": ("refuse", "skip"),
    }
