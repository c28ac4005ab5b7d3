from transferlab.datasets.seeding import generator


def test_same_purpose_and_numbers_give_the_same_stream() -> None:
    assert generator("a", 1, 2).random() == generator("a", 1, 2).random()


def test_every_part_of_the_purpose_counts() -> None:
    keys = [("a", 1, 2), ("a", 12), ("a", 2, 1), ("b", 1, 2), ("a", 1)]
    assert len({generator(key[0], *key[1:]).random() for key in keys}) == len(keys)
