import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from omegaconf import DictConfig

from transferlab.baselines import BLOCK, baselines, raw_pixels
from transferlab.datasets.base import Index
from transferlab.datasets.cache import Decoded
from transferlab.datasets.store import ImageStore
from transferlab.split_data import open_data


def test_baselines_learn_the_digits(compose: Callable[..., DictConfig]) -> None:
    cfg = compose()
    digits = open_data(cfg.target, cfg.backbone)
    found = baselines(digits.store, digits.subset(20, None, 0), digits.splits.test)
    assert found["majority"]["accuracy"] == pytest.approx(0.1, abs=0.01)
    assert found["majority"]["macro_recall"] == pytest.approx(0.1)
    assert found["logistic_regression"]["accuracy"] > 0.88
    assert found["knn"]["accuracy"] > 0.88
    assert found["knn"]["k"] == 5
    assert baselines(digits.store, digits.subset(5, None, 0), digits.splits.test)["knn"]["k"] == 1


def test_raw_pixels_of_large_images_take_little_memory() -> None:
    count, side = 128, 224
    images = np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    index = Index(tuple(map(str, range(count))), np.zeros(count, np.int64), ("a",), stamp="x")
    store = ImageStore(Decoded(images, index, ("",) * count, (), "x"))
    tracemalloc.start()
    made = raw_pixels(store, np.arange(count))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole = images.astype(np.float32) / 255
    assert peak < 16 * BLOCK + made.nbytes < whole.nbytes
    averaged = whole.reshape(count, 3, 32, 7, 32, 7).mean(axis=(3, 5)).reshape(count, -1)
    np.testing.assert_array_equal(made, averaged)
