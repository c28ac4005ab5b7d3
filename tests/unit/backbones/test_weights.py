import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from transferlab.backbones.timm import create_backbone
from transferlab.backbones.weights import (
    load_backbone,
    load_weights,
    published_weights,
    weights_sha256,
)
from transferlab.errors import UserError

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def whole() -> State:
    """A state dict as timm publishes it: with its classifier of 10 classes."""
    torch.manual_seed(1)
    return dict(timm.create_model("test_resnet", num_classes=10).state_dict())


def load(path: Path) -> tuple[torch.nn.Module, int | None]:
    backbone = create_backbone("test_resnet", {})
    return backbone, load_backbone(backbone, load_weights(path), str(path))


def assert_loaded(backbone: torch.nn.Module, state: State) -> None:
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, state[key]), key


WRAPPINGS: dict[str, Any] = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "data parallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "wrapped twice": lambda s: {"model": {f"module.model.{k}": v for k, v in s.items()}},
    "compiled": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "lightning": lambda s: {"state_dict": {f"model.backbone.{k}": v for k, v in s.items()}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_the_usual_wrappings_are_opened(wrapping: str, whole: State, tmp_path: Path) -> None:
    torch.save(WRAPPINGS[wrapping](whole), tmp_path / "weights.pt")
    backbone, classes = load(tmp_path / "weights.pt")
    assert_loaded(backbone, whole)
    assert classes == 10


def test_safetensors(whole: State, tmp_path: Path) -> None:
    save_file(whole, tmp_path / "weights.safetensors")
    backbone, classes = load(tmp_path / "weights.safetensors")
    assert_loaded(backbone, whole)
    assert classes == 10


def test_the_directory_of_a_run(whole: State, tmp_path: Path) -> None:
    body = {f"backbone.{k}": v for k, v in whole.items() if not k.startswith("fc.")}
    head = {"head.weight": torch.zeros(4, 64), "head.bias": torch.zeros(4)}
    (tmp_path / "checkpoints").mkdir()
    save_file(body | head, tmp_path / "checkpoints" / "last.safetensors")
    backbone, classes = load(tmp_path)
    assert_loaded(backbone, whole)
    assert classes == 4


def test_weights_without_a_classifier_name_no_classes(whole: State, tmp_path: Path) -> None:
    save_file(
        {k: v for k, v in whole.items() if not k.startswith("fc.")}, tmp_path / "b.safetensors"
    )
    assert load(tmp_path / "b.safetensors")[1] is None


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_a_truncated_file_is_named(ending: str, whole: State, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{ending}"
    torch.save(whole, path) if ending == "pt" else save_file(whole, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"weights\.{ending} is truncated or not a weights file"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"{}", b"PK\x03\x04"])
@pytest.mark.parametrize("ending", ["pt", "pth", "safetensors", "bin"])
def test_a_foreign_file_is_named(content: bytes, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{ending}"
    path.write_bytes(content)
    with pytest.raises(UserError, match="weights"):
        load(path)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("dump", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_code_in_a_pickle_is_never_run(dump: Any, tmp_path: Path) -> None:
    dump({"state_dict": Bomb(tmp_path / "exploded")}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match="weights_only"):
        load(tmp_path / "weights.pt")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, torch.zeros(3)])
def test_a_file_without_tensors_by_name_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(UserError, match="no state dict"):
        load(tmp_path / "weights.pt")


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"lacks \d+ of the backbone's .* backbone\.name"):
        load(tmp_path / "weights.pt")


def test_another_shape_is_refused(whole: State, tmp_path: Path) -> None:
    torch.save(whole | {"conv1.0.weight": torch.zeros(3, 3, 3, 3)}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"conv1\.0\.weight is \(3, 3, 3, 3\) there"):
        load(tmp_path / "weights.pt")


def test_missing_files_are_named_with_their_neighbours(whole: State, tmp_path: Path) -> None:
    torch.save(whole, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"nearest: weights\.pt"):
        load(tmp_path / "wieghts.pt")
    with pytest.raises(UserError, match=r"holds no checkpoints"):
        load(tmp_path)
    with pytest.raises(UserError, match="no weights at"):
        load(tmp_path / "nowhere" / "weights.pt")


def test_the_hash_is_of_content_not_of_the_file(whole: State, tmp_path: Path) -> None:
    torch.save(whole, tmp_path / "a.pt")
    save_file(whole, tmp_path / "a.safetensors")
    digest = weights_sha256(load_weights(tmp_path / "a.pt"))
    assert digest == weights_sha256(load_weights(tmp_path / "a.safetensors"))
    other = {k: v.clone() for k, v in whole.items()}
    other["conv1.0.weight"].view(-1)[0] += 1e-3
    assert weights_sha256(other) != digest
    assert weights_sha256({k: v.double() for k, v in whole.items()}) != digest


def test_published_weights_from_a_file_need_no_network(whole: State, tmp_path: Path) -> None:
    torch.save(whole, tmp_path / "weights.pt")
    found = published_weights("test_resnet", None, str(tmp_path / "weights.pt"), {})
    assert weights_sha256(found) == weights_sha256(whole)


def test_an_unknown_tag_names_the_published_ones() -> None:
    with pytest.raises(UserError, match=r"a1_in1k"):
        published_weights("resnet50", "a1_in1", None, {})
    with pytest.raises(UserError, match=r"resnet50"):
        published_weights("resnet5O", None, None, {})
