"""Weights from outside: timm's published ones, files, and runs of our own."""

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from transferlab.backbones.module import ModuleBackbone
from transferlab.backbones.timm import require_model
from transferlab.errors import UserError, nearest
from transferlab.records import replacing, sha256_file

StateDict = dict[str, Tensor]
WRAPPERS = ("state_dict", "model", "model_state_dict", "teacher", "ema")
PREFIXES = ("module.", "model.", "backbone.", "encoder.", "_orig_mod.", "body.")


def weights_sha256(state: StateDict) -> str:
    """SHA-256 of names, types, shapes and values, whatever file they came in."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def published_weights(
    name: str, tag: str | None, path: str | None, kwargs: dict[str, Any]
) -> StateDict:
    """Return timm's published weights of a backbone, without its classifier.

    Args:
        name: a timm architecture.
        tag: of the weights, such as ``a1_in1k``; None takes timm's default.
        path: a local file in the layout that timm publishes, instead of the hub.
        kwargs: passed to ``timm.create_model``.

    Raises:
        UserError: unknown tag, no network, or a file that does not fit.
    """
    require_model(name)
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
    if tag is not None and tag not in tags:
        raise UserError(
            f"timm publishes no weights {tag!r} for {name} ({nearest(tag, tags or ['none'])}). "
            "Set source.tag to one of them, or source=checkpoint source.path=FILE."
        )
    if path is not None:
        return load_weights(Path(path))
    full = f"{name}.{tag}" if tag else name
    try:
        model = timm.create_model(full, pretrained=True, num_classes=0, **kwargs)
    except Exception as error:  # the hub's client raises many kinds, all with the same remedy
        raise UserError(
            f"could not get the published weights of {full} ({type(error).__name__}: "
            f"{_first_line(error)}). Without network give them as a file: source.path=FILE."
        ) from error
    return dict(model.state_dict())


def load_weights(path: Path) -> StateDict:
    """Read a state dict from a file, or from the directory of a run.

    Wrappers such as ``state_dict`` are opened. Files are read as safetensors or with
    ``weights_only=True``, so nothing in them is executed.

    Raises:
        UserError: missing, truncated or foreign file.
    """
    file = path
    if path.is_dir():
        found = sorted(path.glob("checkpoints/*.safetensors"))
        if not found:
            raise UserError(
                f"{path} holds no checkpoints/*.safetensors. Give a weights file, or the "
                "directory of a run that kept its weights (checkpoint.keep=last)."
            )
        file = found[-1]
    if not file.is_file():
        siblings = [p.name for p in file.parent.iterdir()] if file.parent.is_dir() else []
        raise UserError(f"no weights at {file} ({nearest(file.name, siblings or ['nothing'])}).")
    try:
        state = _read(file)
    except Exception as error:  # torch's unpickler raises a KeyError as well as its own kinds
        raise UserError(
            f"{file} is truncated or not a weights file ({_first_line(error)}). "
            "Give a .safetensors file or a state dict that loads with weights_only=True."
        ) from error
    return _unwrap(state, file)


def save_weights(path: Path, state: Mapping[str, Tensor], notes: Mapping[str, Any]) -> str:
    """Write weights and buffers as safetensors, whole or not at all; return the file's SHA-256.

    Args:
        path: of the file.
        state: names and tensors, on any device.
        notes: about the run that they come from; equal weights and notes make equal files.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with replacing(path) as temporary:
        # one entry: safetensors writes several in any order, and equal weights would differ
        save_file(plain, temporary, metadata={"transferlab": json.dumps(notes, sort_keys=True)})
    return sha256_file(path)


def _read(file: Path) -> Any:
    if file.suffix == ".safetensors":
        return load_file(file)
    with warnings.catch_warnings():  # about the pickle's protocol; it loads, or it raises
        warnings.simplefilter("ignore", UserWarning)
        return torch.load(file, map_location="cpu", weights_only=True)


def load_backbone(backbone: nn.Module, state: StateDict, where: str) -> int | None:
    """Load a state dict into a backbone; a classifier in it is left out.

    Args:
        backbone: a model without classifier.
        state: its weights, by any of the usual prefixes.
        where: they came from, for error messages.

    Returns:
        the number of classes of the classifier that was left out, or None where there was none.

    Raises:
        UserError: not every parameter and buffer of the backbone is there in its shape.
    """
    cut = getattr(backbone, "cut", None)
    if isinstance(backbone, ModuleBackbone):
        backbone = backbone.body  # its files know nothing of what we put around it
    wanted = backbone.state_dict()
    state = _strip(state, set(wanted))
    wrong = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
    if wrong:
        key = wrong[0]
        raise UserError(
            f"{where} does not fit: {key} is {tuple(state[key].shape)} there and "
            f"{tuple(wanted[key].shape)} in the backbone ({len(wrong)} differ). "
            "Set backbone.name, backbone.kwargs and backbone.image_size as in its training."
        )
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    if missing:
        raise UserError(
            f"{where} lacks {len(missing)} of the backbone's {len(wanted)} tensors, first "
            f"{missing[0]}; it starts with {', '.join(list(state)[:3])}. Set backbone.name to "
            "the architecture that it was trained with."
        )
    backbone.load_state_dict({k: state.get(k, v) for k, v in wanted.items()})
    return _classes(backbone, cut, state, set(wanted))


def _classes(backbone: nn.Module, cut: str | None, state: StateDict, used: set[str]) -> int | None:
    config: Any = getattr(backbone, "pretrained_cfg", {}) or {}
    names = cut or config.get("classifier") or ()
    names = (names,) if isinstance(names, str) else names
    prefixes = (*names, "head", "fc", "classifier")
    rows = [
        int(tensor.shape[0])
        for key, tensor in state.items()
        if key not in used
        and key.startswith(prefixes)
        and key.endswith("weight")
        and tensor.ndim > 1  # a norm beside the classifier has no classes
    ]
    return rows[-1] if rows else None


def _strip(state: StateDict, wanted: set[str]) -> StateDict:
    """Remove the prefixes under which training code wraps a backbone, one after another.

    Of all the ways on, the one that fits most names counts: a new head beside a wrapped backbone
    may be called as something inside it.
    """
    best = state
    for prefix in PREFIXES:
        inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if len(inside) * 2 > len(state):
            others = {k: v for k, v in state.items() if not k.startswith(prefix)}
            found = _strip(others | inside, wanted)
            if len(wanted & set(found)) > len(wanted & set(best)):
                best = found
    return best


def _unwrap(state: Any, file: Path) -> StateDict:
    for wrapper in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    tensors = (
        {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
        if isinstance(state, dict)
        else {}
    )
    if not tensors:
        raise UserError(f"{file} holds no state dict of tensors. Save model.state_dict() there.")
    return tensors


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:160]
