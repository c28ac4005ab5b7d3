import numpy as np

from transferlab.datasets.digits import Digits


def test_digits_are_whole_and_span_the_range() -> None:
    digits = Digits()
    index = digits.index()
    assert len(index) == 1797
    assert index.classes == tuple("0123456789")
    assert len(set(index.ids)) == 1797
    pixels = np.stack([np.asarray(digits.image(item)) for item in range(50)])
    assert pixels.shape == (50, 8, 8)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert set(np.unique(pixels)) <= {round(value * 255 / 16) for value in range(17)}


def test_first_digit_is_scikit_learns_zero() -> None:
    digits = Digits()
    assert digits.index().labels[:10].tolist() == list(range(10))
    assert np.asarray(digits.image(0))[0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
