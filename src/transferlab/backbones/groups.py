"""Layer groups: a backbone cut into ordered slices, stem first."""

from functools import lru_cache
from typing import Any, Literal

import timm
import torch
from timm.models import group_parameters
from torch import nn

from transferlab.errors import UserError

Granularity = Literal["stages", "blocks"]


def layer_ids(
    name: str, backbone: nn.Module, granularity: Granularity
) -> tuple[dict[str, int], int]:
    """Give every parameter of a backbone the number of its layer group.

    The numbers are timm's, taken from the model *with* a classifier, so that parameters which
    share the classifier's group (a final norm inside the head) are numbered as published ladders
    number them, although this backbone has no classifier.

    Args:
        name: the timm architecture.
        backbone: the same model without classifier.
        granularity: ``blocks`` for timm's fine groups (ResNet-50 18 with the head, ViT-B 14),
            ``stages`` for its coarse ones.

    Returns:
        parameter name -> group in [0, head], and the head's own number.

    Raises:
        UserError: the model offers no groups.
    """
    reference, head = _reference_ids(name, granularity == "stages")
    ids = {}
    for parameter, _ in backbone.named_parameters():
        # a parameter that the classifier-free model alone has stands at the top of the body
        ids[parameter] = reference.get(parameter, max(head - 1, 0))
    return ids, head


def module_groups(backbone: nn.Module, ids: dict[str, int], head: int) -> list[list[nn.Module]]:
    """Sort the backbone's leaf modules into its groups, so that a frozen one can be held in eval.

    A module follows its parameters; one without (dropout, pooling) follows the closest
    enclosing module whose parameters all lie in one group, else it belongs to the top.

    Args:
        backbone: the model.
        ids: parameter name -> group.
        head: the head's number; groups of the body are 0 .. head - 1.

    Returns:
        head lists of modules; a backbone's parameters numbered as the head's count to the last.
    """
    top = max(head - 1, 0)
    groups: list[list[nn.Module]] = [[] for _ in range(max(head, 1))]
    for path, module in backbone.named_modules():
        if next(module.children(), None) is None:
            groups[min(_group_of(path, ids, top), top)].append(module)
    return groups


def _group_of(path: str, ids: dict[str, int], top: int) -> int:
    while path:
        inside = {group for name, group in ids.items() if name.startswith(f"{path}.")}
        if inside:
            return max(inside)
        path = path.rpartition(".")[0]
    return top


@lru_cache(maxsize=32)
def _reference_ids(name: str, coarse: bool) -> tuple[dict[str, int], int]:
    with torch.device("meta"):
        model: Any = timm.create_model(name, pretrained=False, num_classes=2)
    if not hasattr(model, "group_matcher"):
        raise UserError(
            f"timm's {name} offers no layer groups (group_matcher), so it can't be unfrozen or "
            "decayed by layer. Use strategy=fine_tune, feature_extraction or scratch."
        )
    matcher = model.group_matcher(coarse=coarse)
    ids = {
        parameter: int(group)
        for parameter, group in group_parameters(model, matcher, reverse=True).items()
    }
    classifiers = model.pretrained_cfg.get("classifier") or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
    own = [group for key, group in ids.items() if key.startswith(tuple(classifiers))]
    return ids, max(own) if classifiers and own else max(ids.values()) + 1
