from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from transferlab.config import config_folder, register
from transferlab.errors import UserError
from transferlab.recommending.candidates import Candidate, compose_candidates
from transferlab.recommending.recommendation import study_command


def candidates(*arguments: str, more: tuple[Path, ...] = ()) -> list[Candidate]:
    register()
    GlobalHydra.instance().clear()
    known = ["source.path", "target.shots", "optimizer.lr"]
    return compose_candidates(arguments, [config_folder(), *more], known)[1]


def test_names_of_sources() -> None:
    found = candidates("candidates.source=[glyphs,noise]", "target.shots=7")
    assert [one.name for one in found] == ["glyphs", "noise"]
    assert [one.cfg.source.name for one in found] == ["glyphs", "noise"]
    assert found[1].cfg.source.corruption == "noise"
    assert all(one.cfg.target.shots == 7 and one.cfg.study is None for one in found)


def test_commas_alone_will_do() -> None:
    assert [one.name for one in candidates("candidates.source=glyphs,noise")] == ["glyphs", "noise"]
    assert [one.name for one in candidates("candidates.source=glyphs")] == ["glyphs"]


def test_options_of_a_candidate_s_own() -> None:
    one, two = candidates(
        "candidates.source=[{glyphs:{pretrain:{seed:3},dataset:{per_class:9}}},glyphs]"
    )
    assert one.source == ("source=glyphs", "source.pretrain.seed=3", "source.dataset.per_class=9")
    assert (one.cfg.source.pretrain.seed, two.cfg.source.pretrain.seed) == (3, 0)
    assert one.name == "glyphs (pretrain.seed=3, dataset.per_class=9)"


def test_files_are_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "my weights.pt"
    path.touch()
    (one,) = candidates(f"candidates.source=['{path}']")
    assert (one.name, one.cfg.source.kind, one.cfg.source.path) == (
        "my weights", "checkpoint", str(path),
    )  # fmt: skip


def test_backbones_by_choice_and_by_timms_name_are_crossed_with_sources() -> None:
    found = candidates(
        "candidates.source=[glyphs,noise]", "candidates.backbone=[test_resnet,test_vit]"
    )
    assert [one.name for one in found] == [
        "glyphs on test_resnet", "noise on test_resnet", "glyphs on test_vit", "noise on test_vit",
    ]  # fmt: skip
    assert found[2].cfg.backbone.name == "test_vit"


def test_the_sources_that_a_study_declares() -> None:
    found = candidates("experiment=digits")
    assert [one.name for one in found] == ["glyphs", "noise"]
    assert found[0].cfg.target.test == 0.5


def test_a_single_source_of_the_command_line() -> None:
    (one,) = candidates("source=glyphs", "source.dataset.per_class=5")
    assert one.cfg.source.dataset.per_class == 5


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("target=digits", "there is no candidate"),
        ("candidates.source=[glyfs]", "'glyfs' is no source and no file (nearest: glyphs"),
        ("candidates.source=[none]", "none is no source"),
        ("candidates.source=[]", "an empty list"),
        ("candidates.source=[glyphs,glyphs]", "glyphs stands there twice"),
        ("candidates.source=[glyphs] source=noise", "give one of the two"),
        ("candidates.sauce=[glyphs]", "nearest: candidates.source"),
        ("candidates.source=[3]", "3 is no name"),
        ("candidates.source=[{glyfs:{seed:1}}]", "no such choice 'glyfs'"),
        ("candidates.source=[glyphs] target.shots=1,2", "candidates.backbone=[A,B]"),
        ("candidates.source=[glyphs] target.shts=1", "nearest: target.shots"),
        ("candidates.source=[glyphs] target.shots=0", "target.shots=0"),
        ("candidates.source=[{glyphs:{pretrain:{sede:1}}}]", "source.pretrain.sede"),
        ("candidates.source=[checkpoint]", "source.path"),
    ],
)
def test_wrong_candidates_are_one_line(line: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        candidates(*line.split())
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_choices_of_the_user_s_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "source"
    folder.mkdir(parents=True)
    (folder / "letters.yaml").write_text("defaults: [glyphs, _self_]\nname: letters\n")
    (one,) = candidates("candidates.source=[letters]", more=(tmp_path / "conf",))
    assert one.cfg.source.name == "letters"


def test_the_command_names_all_that_the_candidate_was_composed_of() -> None:
    shared = ("target.shots=20", "source.dataset.per_class=12", "name=mine", "seed=3")
    _, best = candidates("candidates.source=[noise,{glyphs:{pretrain:{seed:1}}}]", *shared)
    text = study_command(shared, best, ("lp_ft",))
    assert text.startswith("transferlab run experiment=compare target=digits backbone=test_resnet")
    assert "target.shots=20" in text
    arms = "source:[glyphs],source.pretrain.seed:[1],source.dataset.per_class:[12],strategy:[lp_ft]"
    assert f"'+study.arms={{{arms}}}'" in text
    assert "name=mine" not in text
    assert "seed=3" not in text.split()


def test_the_command_of_a_study_is_the_study() -> None:
    (best, _) = candidates("experiment=digits", "target.shots=3")
    text = study_command(("experiment=digits", "target.shots=3"), best, ("lp_ft",))
    assert text == "transferlab run experiment=digits target.shots=3"
