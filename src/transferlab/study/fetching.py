"""Everything that runs need from the network, brought here before any of them starts.

To plan a run is to have it all: its identity holds the content of its images and of its weights.
"""

from collections.abc import Sequence

from omegaconf import DictConfig

from transferlab.planning import plan_run, plan_source
from transferlab.split_data import data_name


def fetch(configs: Sequence[DictConfig]) -> list[str]:
    """Bring the data, decoded, and the weights of some configurations; say what there is now.

    Raises:
        UserError: something can't be brought, or is wrong in a configuration.
    """
    found: dict[str, None] = {}
    for cfg in configs:
        plan = plan_run(cfg)
        images = f"{len(plan.data.store)} images at {plan.data.preprocessing.size} pixels"
        found[f"target {data_name(cfg.target)}: {images}"] = None
        for name, test in plan.further.items():
            found[f"further test set {name}: {len(test.positions)} images"] = None
        if plan.cfg.source.kind == "dataset":
            source = plan_source(cfg).data
            images = f"{len(source.store)} images at {source.preprocessing.size} pixels"
            found[f"source {data_name(cfg.source)}: {images}"] = None
        elif plan.cfg.source.kind != "none":
            sha = str(plan.identity["source"])[:16]
            found[f"weights of {cfg.backbone.name} from {cfg.source.name}: {sha}"] = None
    return list(found)
