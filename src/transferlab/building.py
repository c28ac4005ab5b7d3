"""Objects from configuration nodes, with errors that belong to the user."""

import importlib
import inspect
import logging
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from transferlab.errors import UserError, nearest
from transferlab.targets import target_nodes

logging.getLogger("hydra").addHandler(logging.NullHandler())  # errors are lines of our own


def build(node: Any, *args: Any, **kwargs: Any) -> Any:
    """Instantiate a node with ``_target_``; an error inside is raised as it is, or as UserError."""
    try:
        return instantiate(node, *args, **kwargs)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        reason = f"{type(cause).__name__}: {cause}" if cause is not None else str(error)
        raise UserError(f"{node.get('_target_')} could not be built: {reason}") from error


def check_nodes(cfg: DictConfig) -> None:
    """Bind every ``_target_`` node to its signature and check its values, without running it.

    Raises:
        UserError: unknown target or argument, or a value of the wrong type; names the nearest.
    """
    for path, node in target_nodes(cfg):
        _check_node(path, node)


def _check_node(path: str, node: DictConfig) -> None:
    target = str(node["_target_"])
    callable_ = locate(path, target)
    signature = inspect.signature(callable_)
    named = {
        name: p
        for name, p in signature.parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for key in (str(key) for key in node if not str(key).startswith("_")):
        if key not in named and not open_ended:
            raise UserError(
                f"{path}.{key}: {target} takes no argument {key!r} ({nearest(key, named)})."
            )
        if key in named:
            _check_value(f"{path}.{key}", node, key, named[key].annotation)


def locate(path: str, target: str) -> Any:
    """Import what a ``_target_`` names; UserError with the nearest name where there is none."""
    try:
        return get_object(target)
    except Exception as error:  # whatever the import of a named module raises
        module, _, name = target.rpartition(".")
        try:
            options = [n for n in vars(importlib.import_module(module)) if not n.startswith("_")]
        except Exception:
            options = []
        hint = nearest(name, options) if options else f"no module {module}"
        raise UserError(f"{path}._target_={target} can't be imported ({hint}).") from error


def _check_value(path: str, node: DictConfig, key: str, annotation: Any) -> None:
    if annotation in (inspect.Parameter.empty, Any) or OmegaConf.is_missing(node, key):
        return
    value = node[key]
    if isinstance(value, DictConfig | ListConfig):
        if isinstance(value, DictConfig) and "_target_" in value:
            return
        value = OmegaConf.to_container(value, resolve=True)
    if "_target_" in str(value):
        return
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except Exception:  # an annotation that can't be checked is left to the callee
        return
    try:
        adapter.validate_python(tuple(value) if isinstance(value, list) else value)
    except PydanticUserError:  # torch writes annotations as text that names what it hides
        return
    except ValidationError as error:
        wanted = getattr(annotation, "__name__", None) or str(annotation)
        wanted = str(annotation) if "[" in str(annotation) or "|" in str(annotation) else wanted
        raise UserError(
            f"{path}={value!r}: expected {wanted.replace('typing.', '')} "
            f"({error.errors()[0]['msg'].lower()})."
        ) from error
