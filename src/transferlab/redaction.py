"""Tokens, keys and passwords: known by the names they go under, kept out of whatever is written."""

import json
import os
import re
from functools import lru_cache
from typing import Any

WORDS = ("token", "password", "passwd", "passphrase", "secret", "apikey", "credentials")
"""A name that ends with one of these words holds a secret: ``HF_TOKEN``, ``db_password``."""
PAIRS = (("api", "key"), ("access", "key"), ("private", "key"), ("secret", "key"))
SHORTEST = 8
"""Characters below which a value of the environment is too common a text to look for."""
LOGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s@'\"]+@")
"""The user and password inside an address: ``https://user:password@host``."""


@lru_cache(maxsize=4096)  # all variables are asked for with every line that is written
def is_secret_name(name: str) -> bool:
    """Say whether a variable or the last part of a dotted key is a secret's, by its last words."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.rpartition(".")[2])
    words = [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]
    return bool(words) and (words[-1] in WORDS or tuple(words[-2:]) in PAIRS)


def is_secret(name: str, value: Any) -> bool:
    """Say whether a setting is a secret; ``class_token=true`` is none, nor is one left empty."""
    if value in (None, "", "null") or isinstance(value, bool) or not is_secret_name(name):
        return False
    return str(value).lower() not in ("true", "false")


def hidden(text: str) -> str | None:
    """Return the name of the environment's secret that a text holds, or None."""
    return next((name for value, name in _environment() if value in text), None)


def has_login(text: str) -> bool:
    """Say whether a text holds an address with a user or a password in it."""
    return LOGIN.search(text) is not None


def redacted(text: str) -> str:
    """Return a text without the environment's secrets and without logins in addresses.

    Each secret is replaced by its variable's name, so that one can see what was there.
    """
    for value, name in _environment():
        if value in text:
            text = text.replace(value, f"<{name}>")
    return LOGIN.sub(r"\1***@", text) if "://" in text else text


def _environment() -> list[tuple[str, str]]:
    """Return the values of secret variables, as they are and as JSON writes them; long ones first.

    It is read each time: libraries set such variables while a program runs.
    """
    found: dict[str, str] = {}
    for name, value in os.environ.items():
        if is_secret_name(name) and len(value.strip()) >= SHORTEST:
            found |= dict.fromkeys((value.strip(), json.dumps(value.strip())[1:-1]), name)
    return sorted(found.items(), key=lambda pair: -len(pair[0]))
