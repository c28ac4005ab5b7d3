"""Hydra's errors, in one line that names the nearest valid spelling."""

import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from transferlab.errors import UserError, nearest
from transferlab.redaction import has_login, hidden, is_secret

CONF_FOLDERS = "TRANSFERLAB_CONF"
"""Environment variable: the user's configuration folders, instead of ./conf and --config-dir."""
MISTYPED = re.compile("could not be converted|is not a valid|Invalid type|not supported")
WANTED = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
"""What to give instead, by what OmegaConf calls it."""
KNOWN = (HydraException, OmegaConfBaseException, YAMLError)


def explain(error: Exception, known_keys: list[str]) -> UserError:
    """Turn an error of Hydra or OmegaConf into one line for the user.

    Args:
        error: what composition raised.
        known_keys: dotted keys and groups that exist, from which the nearest are named.
    """
    if isinstance(error, YAMLError):
        return UserError(f"{' '.join(str(error).split())}. Mend this YAML file.")
    text = f"{error}\n{error.__cause__ or ''}"
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = [o for o in error.options if not o.startswith("_") and not o.endswith("_schema")]
        return UserError(f"{group}={choice}: no such choice ({nearest(choice, options)}).")
    found = re.search(r"Could not (?:override|append).*?'\+*([^'=]+)'", text)
    found = found or re.search(r"Could not find '([^']+)'", text)
    key = _full_key(text) or (found.group(1) if found else None)
    if "is not in struct" in text or "not in '" in text or (found and "Key '" in text):
        return _unknown(key, known_keys)
    if MISTYPED.search(text):
        told = next(line for line in text.splitlines() if MISTYPED.search(line))
        kind = told.rpartition("'")[2]  # behind what came in
        wanted = next((f" Give {words}." for name, words in WANTED.items() if name in kind), "")
        return UserError(f"{key}: {told.strip().rstrip('.')}.{wanted}")
    if found and key is not None:
        return _unknown(key, known_keys)
    return UserError(_first_line(text))


def _unknown(key: str | None, known_keys: list[str]) -> UserError:
    """Name the nearest keys; where none is near, those of the same level."""
    level = str(key).rpartition(".")[0]
    if key in known_keys:
        group = level.partition(".")[0]
        return UserError(
            f"{key} belongs to another choice of {group}: set {group}=... to the one that has it."
        )
    close = difflib.get_close_matches(str(key), known_keys, n=3, cutoff=0.6)
    siblings = [name for name in known_keys if name.rpartition(".")[0] == level]
    return UserError(f"unknown key {key!r} ({nearest(key, close or siblings or known_keys)}).")


def require_no_secrets(settings: Iterable[tuple[str, Any]]) -> None:
    """Refuse tokens, keys and passwords among settings, which records keep and people share.

    Args:
        settings: dotted keys and values; no message ever holds a value.

    Raises:
        UserError: names the key and where its secret belongs.
    """
    for key, value in settings:
        text = str(value)
        if is_secret(key, value):
            what = "is a secret's name"
        elif (name := hidden(text)) is not None:
            what = f"holds the value of the environment's {name}"
        elif has_login(text):
            what = "is an address with a user or a password in it"
        else:
            continue
        raise UserError(
            f"{key} {what}, and settings are recorded. Leave it out and set the secret in the "
            "environment, where its library looks for it (WANDB_API_KEY, HF_TOKEN, "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)."
        )


def keys(cfg: DictConfig) -> list[str]:
    """List the dotted keys of a configuration that people set, for naming the nearest."""
    return list(_keys(OmegaConf.to_container(cfg, resolve=False), ""))


def group_names(folders: list[Path]) -> list[str]:
    """List the configuration groups below some folders."""
    return sorted({
        str(path.relative_to(folder)) for folder in folders for path in folder.rglob("*")
        if path.is_dir() and any(path.glob("*.yaml"))
    })  # fmt: skip


def parse(overrides: list[str]) -> list[Override]:
    """Parse command-line overrides; one that is not of the form key=value is a UserError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    require_no_secrets(_settings(overrides))  # first: other errors name what came in
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            raise UserError(f"{text!r} is not of the form key=value. See transferlab run --help.")
    parsed = []
    for text in overrides:
        try:
            parsed += OverridesParser.create().parse_overrides([text])
        except KNOWN as error:
            raise UserError(
                f"{text}: {_first_line(str(error))}. Quote a value with signs: \"KEY='VALUE'\"."
            ) from error
    return parsed


def _settings(overrides: list[str]) -> Iterator[tuple[str, str]]:
    """Split overrides into keys and values, also where the grammar would take neither."""
    for text in overrides:
        key, _, value = text.lstrip("+~").partition("=")
        yield key.partition("@")[0], value.strip("'\"")
        for inner, given in re.findall(r"([A-Za-z_]\w*)\s*:\s*([^,{}\[\]]+)", value):
            yield f"{key}.{inner}", given.strip(" '\"")


def _keys(node: Any, prefix: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if not str(key).startswith("_"):
                yield f"{prefix}{key}"
                yield from _keys(value, f"{prefix}{key}.")


def _full_key(text: str) -> str | None:
    found = re.search(r"full_key: (\S+)", text)
    return found.group(1) if found else None


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0].strip()
