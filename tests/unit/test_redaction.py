"""Secrets are known by their names and never written."""

import json
from pathlib import Path

import pytest

from transferlab.composing import parse
from transferlab.errors import UserError
from transferlab.records import write_json, write_text
from transferlab.redaction import is_secret, is_secret_name, redacted

CANARY = 'ca"nary-4711'
LOGIN = "https://ann:pass-word@host.org:5000/path"


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "apiKey",
        "tracker.wandb.api_key", "+db.password", "client-secret", "GITHUB_TOKEN",
    ],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "TOKENIZERS_PARALLELISM", "HF_TOKEN_PATH", "backbone.kwargs.reg_tokens", "key", "keys",
        "secretary", "api", "MLFLOW_TRACKING_URI", "study.verdict.margin", "",
    ],
)  # fmt: skip
def test_names_of_other_things(name: str) -> None:
    assert not is_secret_name(name)


def test_a_switch_with_such_a_name_is_no_secret() -> None:
    assert not is_secret("backbone.kwargs.class_token", False)
    assert not is_secret("x.token", None)
    assert is_secret("x.token", "hf_abcdef")


def test_text_loses_what_the_environment_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.setenv("SHORT_TOKEN", "true")  # too common a text to look for
    assert redacted(f"401 for {CANARY}, true") == "401 for <HF_TOKEN>, true"
    write_json(tmp_path / "run.json", {"reason": f"403: {CANARY}", "uri": LOGIN})
    assert json.loads((tmp_path / "run.json").read_text()) == {
        "reason": "403: <HF_TOKEN>",
        "uri": "https://***@host.org:5000/path",
    }
    write_text(tmp_path / "log", f"header: {CANARY}\n")
    assert CANARY not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    "override",
    [
        f"tracker.wandb.api_key={CANARY}", f"+x.token='{CANARY}'", f"x={{password: {CANARY}}}",
        f"x=[{{a: {{api_key: {CANARY}}}}}]", f"head={CANARY}", f"x.uri={LOGIN}",
        f"secret={{{CANARY}",
    ],
)  # fmt: skip
def test_a_secret_on_the_command_line_is_refused_unseen(
    override: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", CANARY)
    with pytest.raises(UserError, match="set the secret in the environment") as caught:
        parse(["seed=1", override])
    assert CANARY not in str(caught.value)
    assert "pass-word" not in str(caught.value)
