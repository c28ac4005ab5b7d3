"""What is said before training, as people ask for it."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors.torch import save_file

SMALL = (
    "trainer=cpu", "trainer.threads=1", "backbone.image_size=16", "target.shots=5",
    "target.max_validation=40", "source.dataset.per_class=12", "source.pretrain.budget.steps=4",
    "source.pretrain.batch_size=16",
)  # fmt: skip


def read(folder: Path, name: str = "default") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "outputs" / name / "recommend.json").read_text())
    return found


@pytest.mark.slow
def test_noise_is_warned_of_before_any_training_on_the_target(
    cli, place: Path, fresh_cache: Path
) -> None:
    line = ("recommend", "candidates.source=[glyphs,noise]", "target=digits", *SMALL, "name=early")
    first = cli(*line)
    assert first.code == 0, first.err
    assert first.err.count("made once and kept in") == 2
    found = read(place, "early")
    assert {one["name"]: one["rank"] for one in found["candidates"]}.keys() == {"glyphs", "noise"}
    noise = next(one for one in found["candidates"] if one["name"] == "noise")
    assert noise["alarms"]["w1"]["fires"]
    assert noise["n_items"] == 50
    assert noise["scores"]["leep"]["value"] is not None
    assert noise["gap"]["proxy_a"] > 1
    assert "w1 warns of noise" in first.out
    assert "no verdict" in first.out
    assert found["command"] in first.out
    assert not list(place.rglob("run.json"))  # nothing was adapted
    assert len(list((fresh_cache / "runs").iterdir())) == 2
    again = cli(*line)
    assert again.code == 0
    assert "pretraining" not in again.err
    assert read(place, "early") == found
    planned = cli(*shlex.split(found["command"])[1:], "--dry-run")
    assert planned.code == 0, planned.err
    assert found["advice"]["strategies"][0] in planned.out


@pytest.mark.slow
def test_a_source_that_holds_the_target_s_kind_is_found_and_noise_is_not(cli, place: Path) -> None:
    line = ("target=digits", "target.shots=5", "trainer=cpu", "trainer.threads=1",
            "source.pretrain.budget.steps=60")  # fmt: skip
    result = cli("recommend", "candidates.source=[noise,digits]", *line)
    assert result.code == 0, result.err
    first, second = read(place)["candidates"]
    assert (first["name"], second["name"]) == ("digits", "noise")
    assert not first["alarms"]["w1"]["fires"]
    assert second["alarms"]["w1"]["fires"]
    assert first["gap"]["mmd_p"] > 0.01 > second["gap"]["mmd_p"]
    assert first["gap"]["proxy_a"] < second["gap"]["proxy_a"]
    advice = read(place)["advice"]
    assert (advice["size"], advice["similarity"]) == ("small", "similar")
    assert advice["strategies"][0] == "feature_extraction"


def test_a_file_of_weights_and_its_table(cli, place: Path) -> None:
    save_file(timm.create_model("test_resnet", num_classes=7).state_dict(), "other.safetensors")
    result = cli("recommend", "candidates.source=[other.safetensors]", "target=digits", *SMALL[:5])
    assert result.code == 0, result.err
    (one,) = read(place)["candidates"]
    assert (one["name"], one["source_kind"], one["gap"]) == ("other", "checkpoint", None)
    assert one["scores"]["nce"]["value"] is not None
    assert max(map(len, result.out[: result.out.index("Ranked by")].splitlines())) <= 130


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("recommend", "there is no candidate"),
        ("recommend candidates.source=[glyfs]", "nearest: glyphs"),
        ("recommend candidates.source=[glyphs] --dry", "unknown flag --dry"),
        ("recommend glyphs", "key=value"),
        ("recommend candidates.source=[glyphs] target.shots=100000", "target.shots=100000"),
        ("recommend candidates.source=[gone.pt]", "no source and no file"),
        (
            "recommend candidates.source=[glyphs] target=image_folder target.root=one",
            "one class",
        ),
        (
            "recommend candidates.source=[broken.pt] target=digits",
            "not a weights file",
        ),
        (
            "recommend candidates.source=[glyphs] candidates.backbone=[test_resnt]",
            "nearest: test_resnet",
        ),
    ],
)
def test_wrong_input_is_one_line_and_code_2(line: str, told: str, cli, draw_classes) -> None:
    draw_classes(Path("one"), classes=("ant",))
    Path("broken.pt").write_text("nothing")
    result = cli(*line.split())
    assert result.code == 2
    assert len(result.lines) == 1
    assert told in result.lines[0]
    assert not list(Path().rglob("recommend.json"))


def test_help_says_how(cli) -> None:
    result = cli("recommend", "--help")
    assert (result.code, result.err) == (0, "")
    assert "candidates.source" in result.out
