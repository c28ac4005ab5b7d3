"""Options of one kind of source are not taken for another, and forgetting needs a source."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from transferlab.checks import check
from transferlab.errors import UserError

Compose = Callable[..., DictConfig]
COMPOSED = ("source=composed", "source.parts=[glyphs,noise]")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("source=glyphs", "source.join=by_name"), "source.join=by_name is for source=composed"),
        (("source=glyphs", "source.leave_out=a"), "source.leave_out=a is for source=composed"),
        (("source=glyphs", "source.parts=[glyphs,noise]"), "source.parts=.* for source=composed"),
        ((*COMPOSED, "source.join=by_nam"), "nearest: by_name"),
        ((*COMPOSED, "source.corruption=noise"), "every part of a composed source has its own"),
        ((*COMPOSED, "source.test=0.5"), "source.test=0.5: every part"),
        ((*COMPOSED, "source.images.alpha=drop"), "source.images=.*every part"),
        (
            (*COMPOSED, "source.pretrain.budget.steps=null", "source.pretrain.budget.epochs=2"),
            "as many steps whatever its parts",
        ),
    ],
)
def test_options_that_nothing_would_read_are_refused(
    overrides: tuple[str, ...], told: str, compose: Compose
) -> None:
    with pytest.raises(UserError, match=told) as caught:
        check(compose(*overrides))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ((), "source=none a run starts from random weights"),
        (("source=glyphs", "strategy=scratch"), "strategy=scratch a run starts from random"),
        (("source=published",), "published weights bring no source data"),
        (("source=checkpoint", "source.path='{file}'"), "weights.pt bring no source data"),
    ],
)
def test_forgetting_needs_a_source_that_can_be_scored(
    overrides: tuple[str, ...], told: str, compose: Compose, tmp_path: Path
) -> None:
    (tmp_path / "weights.pt").touch()
    filled = [text.format(file=tmp_path / "weights.pt") for text in overrides]
    with pytest.raises(UserError, match=told) as caught:
        check(compose("forgetting=true", *filled))
    assert "\n" not in str(caught.value)


def test_forgetting_takes_datasets_and_runs(compose: Compose, tmp_path: Path) -> None:
    for source in (
        ("source=glyphs",),
        COMPOSED,
        ("source=checkpoint", f"source.path='{tmp_path}'"),
    ):
        check(compose("forgetting=true", *source))
