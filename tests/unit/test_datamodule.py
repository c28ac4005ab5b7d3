from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from timm.data import create_transform

from transferlab.backbones.timm import BLOCK, Preprocessing
from transferlab.datamodule import Batch, InOrder, Shuffled, TransferDataModule
from transferlab.split_data import Data, open_data

ITEMS = np.array([3, 5, 8, 13, 21, 34, 55], dtype=np.int64)


@pytest.fixture
def digits(compose: Callable[..., DictConfig]) -> Data:
    cfg = compose()
    return open_data(cfg.target, cfg.backbone)


def seen(steps: int, batch: int = 4, seed: int = 0) -> list[int]:
    stream = Shuffled(None, ITEMS, batch, steps, seed)
    return [int(p) for step in range(steps) for p in stream[step]["positions"]]


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 33])
def test_every_image_is_seen_equally_often_to_within_one(steps: int) -> None:
    counts = [seen(steps).count(int(item)) for item in ITEMS]
    assert max(counts) - min(counts) <= 1
    assert sum(counts) == 4 * steps


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    assert seen(9) == seen(20)[:36]
    assert seen(9) != seen(9, seed=1)
    late = Shuffled(None, ITEMS, 4, 20, 0)[8]["positions"].tolist()
    assert late == seen(9)[-4:]


def test_every_epoch_has_an_order_of_its_own() -> None:
    flat = seen(7)
    epochs = [tuple(flat[start : start + 7]) for start in range(0, 28, 7)]
    assert all(sorted(epoch) == ITEMS.tolist() for epoch in epochs)
    assert len(set(epochs)) == 4


def test_a_batch_may_be_larger_than_the_data() -> None:
    first = Shuffled(None, ITEMS, 16, 1, 0)[0]["positions"].tolist()
    assert sorted(first[:7]) == sorted(first[7:14]) == ITEMS.tolist()


def test_evaluation_sees_each_item_once_in_order() -> None:
    batches = InOrder(None, ITEMS, 3)
    assert len(batches) == 3
    flat = [int(p) for index in range(3) for p in batches[index]["positions"]]
    assert flat == ITEMS.tolist()
    with pytest.raises(IndexError):
        batches[3]


def served(source: Data, **settings) -> TransferDataModule:
    module = TransferDataModule(
        source.store, train=source.splits.train, validation=source.splits.validation,
        preprocessing=source.preprocessing, **settings,
    )  # fmt: skip
    module.setup("fit")
    return module


def test_grey_images_fill_the_channels_of_the_backbone(digits: Data) -> None:
    module = served(digits, batch_size=8, steps=2)
    batch = module.on_after_batch_transfer(next(iter(module.train_dataloader())), 0)
    assert isinstance(batch, Batch)
    assert batch.images.shape == (8, 3, 32, 32)
    assert torch.equal(batch.images[:, 0], batch.images[:, 2])
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels.tolist() == digits.store.labels[batch.positions.numpy()].tolist()
    assert len(module.train_dataloader()) == 2


def test_grey_images_are_normalised_per_channel() -> None:
    preprocessing = Preprocessing(2, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0), "bilinear", 1.0)
    out = preprocessing.normalise(torch.full((1, 1, 2, 2), 0.6))
    assert out[0, :, 0, 0].tolist() == pytest.approx([1.0, 1.6, 0.15])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_input_made_in_blocks_is_that_of_the_whole_batch(
    channels: int, layout: torch.memory_format
) -> None:
    preprocessing = Preprocessing(224, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0), "bilinear", 1.0)
    chance = torch.Generator().manual_seed(0)
    raw = torch.randint(0, 256, (8, channels, 224, 224), dtype=torch.uint8, generator=chance)
    assert 0 < BLOCK // (3 * 224 * 224) < len(raw)  # several blocks, the last one smaller
    before = raw.clone()
    made = preprocessing.from_uint8(raw, layout)
    assert torch.equal(made, preprocessing.normalise(raw.float().div(255)))
    assert made.is_contiguous(memory_format=layout)
    assert torch.equal(raw, before)
    assert preprocessing.from_uint8(raw[:0], layout).shape == (0, 3, 224, 224)


@pytest.mark.parametrize("crop", [1.0, 0.875])
def test_input_equals_that_of_timms_own_transform(
    compose: Callable[..., DictConfig], tmp_path: Path, crop: float
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    for item in range(20):
        folder = tmp_path / "data" / ("a" if item % 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(pixels, item, axis=0)).save(folder / f"{item:02d}.png")
    cfg = compose(
        "target=image_folder", f"target.root='{tmp_path / 'data'}'", "backbone=resnet10t",
        "backbone.image_size=32", f"backbone.crop_pct={crop}",
    )  # fmt: skip
    data = open_data(cfg.target, cfg.backbone)
    module = served(data)
    module.predicted = [np.arange(20)]
    (loader,) = module.predict_dataloader()
    images = torch.cat([module.on_after_batch_transfer(raw, 0).images for raw in loader])
    chosen = data.preprocessing
    transform = create_transform(
        (3, 32, 32), is_training=False, interpolation=chosen.interpolation,
        mean=chosen.mean, std=chosen.std, crop_pct=crop,
    )  # fmt: skip
    for position, name in enumerate(data.store.ids):
        expected = transform(Image.open(tmp_path / "data" / name))
        torch.testing.assert_close(images[position], expected, atol=1e-5, rtol=1e-5)


def test_training_images_are_augmented_and_evaluation_images_are_not(digits: Data) -> None:
    from transferlab.augmentations.affine import RandomAffine
    from transferlab.augmentations.flip import RandomHorizontalFlip

    settings = {"augmentations": [RandomAffine(10.0, (0.9, 1.1), 0.1), RandomHorizontalFlip()]}
    plain, augmented = served(digits), served(digits, **settings, seed=3)
    other = served(digits, **settings, seed=4)
    raw = {"images": torch.from_numpy(digits.store.images(ITEMS)),
           "positions": torch.from_numpy(ITEMS)}  # fmt: skip

    def images(module: TransferDataModule, step: int) -> torch.Tensor:
        return module.on_after_batch_transfer({**raw, "step": step}, 0).images

    assert torch.equal(images(augmented, -1), images(plain, -1))
    assert not torch.equal(images(augmented, 0), images(plain, 0))
    assert torch.equal(images(augmented, 5), images(augmented, 5))
    assert not torch.equal(images(augmented, 5), images(augmented, 6))
    assert not torch.equal(images(augmented, 5), images(other, 5))


def test_mixed_batches_follow_from_seed_step_part_and_rank(digits: Data) -> None:
    from transferlab.augmentations.mixing import Mixing

    module = served(digits, augmentations=[Mixing(mixup=0.5, cutmix=1.0)], seed=3)
    raw = {"images": torch.from_numpy(digits.store.images(ITEMS)),
           "positions": torch.from_numpy(ITEMS)}  # fmt: skip

    def batch(step: int, micro: int = 0, rank: int = 0) -> Batch:
        plugin = SimpleNamespace(convert_input=lambda images: images)
        module.trainer = SimpleNamespace(global_rank=rank, precision_plugin=plugin)  # type: ignore[assignment]
        return module.on_after_batch_transfer({**raw, "step": step, "micro": micro}, 0)

    first = batch(4)
    assert first.labels.shape == (7, 10)
    torch.testing.assert_close(first.labels.sum(1), torch.ones(7))
    assert torch.equal(batch(4).images, first.images)
    assert torch.equal(batch(4).labels, first.labels)
    for other in (batch(5), batch(4, micro=1), batch(4, rank=1)):
        assert not torch.equal(other.labels, first.labels)
        assert not torch.equal(other.images, first.images)
    untouched = batch(-1)
    assert untouched.labels.tolist() == digits.store.labels[ITEMS].tolist()
    assert torch.equal(first.positions, untouched.positions)


def test_augmentations_of_all_kinds_apply_in_order(digits: Data) -> None:
    from torchvision.transforms import v2

    from transferlab.augmentations.affine import RandomAffine
    from transferlab.augmentations.mixing import Mixing
    from transferlab.augmentations.per_image import PerImage

    kinds = [RandomAffine(10.0), PerImage(v2.RandAugment()), Mixing(mixup=0.5)]
    raw = {"images": torch.from_numpy(digits.store.images(ITEMS)),
           "positions": torch.from_numpy(ITEMS), "step": 2}  # fmt: skip
    state = torch.get_rng_state()
    batches = [
        served(digits, augmentations=order).on_after_batch_transfer(raw, 0)
        for order in (kinds, kinds, kinds[::-1], kinds[:2])
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(batches[0].images, batches[1].images)
    assert not torch.equal(batches[0].images, batches[2].images)
    plain, own = batches[3].images, batches[3].labels
    item = int((own != own.roll(1)).nonzero()[0])
    weight = batches[0].labels[item, own[item]]
    expected = weight * plain + (1 - weight) * plain.roll(1, 0)
    torch.testing.assert_close(batches[0].images, expected, atol=1e-5, rtol=1e-5)


def test_resident_images_give_the_same_batches(digits: Data) -> None:
    streamed, resident = served(digits, batch_size=8), served(digits, batch_size=8)
    resident._resident = torch.from_numpy(digits.store.images(np.arange(len(digits.store))))
    pair = [
        module.on_after_batch_transfer(next(iter(module.train_dataloader())), 0)
        for module in (streamed, resident)
    ]
    assert torch.equal(pair[0].images, pair[1].images)
    assert torch.equal(pair[0].labels, pair[1].labels)
