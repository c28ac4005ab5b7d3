import numpy as np
import pytest

from transferlab.datasets.naming import drop_empty, encode_labels, require_classes
from transferlab.errors import UserError


def test_class_names_sort_as_text() -> None:
    labels, classes = encode_labels(["dog", "cat", "dog"])
    assert classes == ("cat", "dog")
    assert labels.tolist() == [1, 0, 1]


def test_whole_numbers_sort_by_value() -> None:
    assert encode_labels(["10", "9", "-1"])[1] == ("-1", "9", "10")


def test_007_and_7_stay_two_classes() -> None:
    assert encode_labels(["7", "007"])[1] == ("007", "7")


@pytest.mark.parametrize(("classes", "said"), [((), "no labelled"), (("cat",), r"one class \(cat")])
def test_fewer_than_two_classes_are_refused(classes: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        require_classes(classes, "it")


def test_declared_classes_without_images_are_left_out() -> None:
    labels, classes = drop_empty(np.array([3, 1, 3]), ["N/A", "a", "b", "c"])
    assert classes == ("a", "c")
    assert labels.tolist() == [1, 0, 1]
