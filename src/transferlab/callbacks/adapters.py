"""Small trained modules inside a frozen backbone: adapters from peft."""

import importlib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from omegaconf import OmegaConf
from torch import nn

from transferlab.callbacks.base import StrategyCallback
from transferlab.errors import UserError, nearest
from transferlab.model import TransferModel
from transferlab.parts import Parts

Kind = Literal["lora", "ia3", "loha", "lokr"]
CONFIGS: dict[Kind, str] = {
    "lora": "LoraConfig", "ia3": "IA3Config", "loha": "LoHaConfig", "lokr": "LoKrConfig",
}  # fmt: skip
"""peft's configuration class of each kind that works on linear and convolutional layers."""
TAKEN = {
    "target_modules": "targets says which layers",
    "exclude_modules": "targets says which layers",
    "modules_to_save": "the head is trained and saved in any case",
    "bias": "the phases say what trains, as in train: [head, adapters, biases]",
    "inference_mode": "the phases say what trains",
    "task_type": "there is one task",
    "peft_type": "kind says it",
}
"""Settings of peft that have no effect here, and what takes their place."""


class PEFTAdapter(StrategyCallback):
    """Add adapters to the backbone's layers; which parts train is for the phases to say.

    The layers themselves stay in place under the name ``base_layer``, and the model computes
    what it did before until the adapters are trained. Their first values are drawn from torch's
    generator, which the run seeds. ``adapters`` in a phase's ``train`` means their parameters.

    Sources: Hu et al., ICLR 2022 (arXiv:2106.09685) for LoRA; Liu et al., NeurIPS 2022
    (arXiv:2205.05638) for IA3; Hyeon-Woo et al., ICLR 2022 (arXiv:2108.06098) for LoHa; Yeh et
    al., ICLR 2024 (arXiv:2309.14859) for LoKr.

    Args:
        kind: lora, ia3, loha or lokr.
        settings: of peft's configuration of this kind, such as ``r`` and ``lora_alpha``.
        targets: ``auto`` for all linear and convolutional layers above the stem, without grouped
            convolutions (IA3 takes these too); or patterns: a layer's last name (``qkv``), the
            path of a layer or of a module around layers, a path with ``*``, or ``re:`` and a
            regular expression for whole paths.

    Raises:
        UserError: peft is not installed.
    """

    def __init__(
        self,
        kind: Kind = "lora",
        settings: Mapping[str, Any] | None = None,
        targets: str | Sequence[str] = "auto",
    ) -> None:
        if kind not in get_args(Kind):
            raise UserError(
                f"adapters.kind={kind}: no such kind ({nearest(kind, get_args(Kind))})."
            )
        if importlib.util.find_spec("peft") is None:
            raise UserError("adapters need peft: pip install 'transferlab[peft]'.")
        plain: Any = OmegaConf.to_container(settings) if OmegaConf.is_config(settings) else settings
        self.kind: Kind = kind
        self.settings: dict[str, Any] = dict(plain or {})
        self.targets = [targets] if isinstance(targets, str) else [str(t) for t in targets]

    def adapt(self, model: TransferModel) -> None:
        """Add the adapters and register them with the model.

        Raises:
            UserError: a pattern that matches no layer, or a setting that peft does not take.
        """
        if model.adapter_modules:
            raise UserError("the model has adapters already: keep one callback that adds some.")
        peft: Any = importlib.import_module("peft")  # takes seconds: only who adapts waits for it
        layers = chosen_layers(model, self.targets, self.kind)
        config = self._config(peft, layers)
        before = {id(part) for part in (*model.parameters(), *model.modules())}
        try:
            peft.inject_adapter_in_model(config, model.backbone)
        except (TypeError, ValueError, RuntimeError) as error:
            raise self._refused(error) from error
        wrapped = [
            module
            for module in model.backbone.modules()
            if id(module) not in before
            and isinstance(getattr(module, "base_layer", None), nn.Module)
        ]
        model.adapter_modules += [
            child for layer in wrapped for name, child in layer.named_children()
            if name != "base_layer"
        ]  # fmt: skip
        inside = {id(p) for module in model.adapter_modules for p in module.parameters()}
        stray = [n for n, p in model.named_parameters() if id(p) not in before | inside]
        if stray or not inside:
            raise UserError(
                f"adapters.settings: with these peft adds {stray[0] if stray else 'nothing'} where "
                f"phases can't reach it. Remove what is not {self.kind}'s own."
            )

    def _config(self, peft: Any, layers: Sequence[str]) -> Any:
        kind = getattr(peft, CONFIGS[self.kind])
        known = [field.name for field in fields(kind) if field.name not in TAKEN]
        for key in self.settings:
            if key in TAKEN:
                raise UserError(f"adapters.settings.{key} has no effect: {TAKEN[key]}.")
            if key not in known:
                raise UserError(
                    f"adapters.settings.{key}: {self.kind} has no such setting "
                    f"({nearest(key, known)})."
                )
        settings = dict(self.settings)
        if self.kind == "ia3":  # which of the layers are scaled at their input
            given = settings.get("feedforward_modules") or []
            given = [given] if isinstance(given, str) else given
            where = "adapters.settings.feedforward_modules"
            settings["feedforward_modules"] = [
                n for pattern in given for n in _matching(pattern, layers, layers, where)
            ]
        try:
            return kind(target_modules="|".join(map(re.escape, layers)), **settings)
        except (TypeError, ValueError) as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> UserError:
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        return UserError(f"adapters: peft refuses {self.settings}: {reason}.")


def chosen_layers(model: TransferModel, targets: Sequence[str], kind: Kind) -> list[str]:
    """Return the paths, inside the backbone, of the layers that get an adapter, in their order.

    Args:
        model: without adapters.
        targets: see :class:`PEFTAdapter`.
        kind: of the adapter.

    Raises:
        UserError: a pattern that matches no layer that can have one.
    """
    every = [path for path, _ in model.backbone.named_modules() if path]
    able = [p for p, m in model.backbone.named_modules() if p and _can_adapt(m, kind)]
    found: set[str] = set()
    for target in targets:
        if target == "auto":
            above = _above_stem(model, able)
            if not above:
                raise UserError(
                    f"adapters.targets=auto: {model.name} has no linear or convolutional layer "
                    "above its stem. Name layers in targets."
                )
            found |= set(above)
        else:
            found |= set(_matching(target, able, every, "adapters.targets"))
    if not found:
        raise UserError("adapters.targets names no layer. Give auto, or patterns such as qkv.")
    return [path for path in able if path in found]


def _above_stem(model: TransferModel, layers: Sequence[str]) -> list[str]:
    groups = Parts(model).group_of
    return [path for path in layers if groups[f"backbone.{path}.weight"] > 0]


def _matching(pattern: str, layers: Sequence[str], every: Sequence[str], where: str) -> list[str]:
    found = [path for path in layers if _matches(path, pattern)]
    if found:
        return found
    others = [path for path in every if _matches(path, pattern)]
    if others:
        raise UserError(
            f"{where}: {pattern!r} matches {others[0]}, which can't have an adapter of this kind: "
            "linear layers and ungrouped convolutions can."
        )
    known = {*layers, *(path.rpartition(".")[2] for path in layers)}
    raise UserError(f"{where}: {pattern!r} matches no layer ({nearest(pattern, known)}).")


def _matches(path: str, pattern: str) -> bool:
    if pattern.startswith("re:"):
        try:
            return re.fullmatch(pattern[3:], path) is not None
        except re.error as error:
            raise UserError(f"{pattern!r} is no regular expression ({error}).") from error
    pattern = pattern.removeprefix("backbone.")
    if any(character in pattern for character in "*?["):
        return fnmatchcase(path, pattern)
    return f".{path}".endswith(f".{pattern}") or path.startswith(f"{pattern}.")


def _can_adapt(layer: nn.Module, kind: Kind) -> bool:
    """Say whether an adapter computes beside a layer what the layer itself would.

    Subclasses pad or standardise in ways that an adapter's own convolution does not repeat.
    """
    if type(layer) is nn.Conv2d:
        return layer.groups == 1 or kind == "ia3"
    return type(layer) is nn.Linear
