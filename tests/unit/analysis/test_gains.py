"""Headings say what sets a cell apart, once."""

from transferlab.analysis.arms import Cell
from transferlab.analysis.gains import title


def cell(**values: object) -> Cell:
    return Cell({"id": "a", "target": "cartoon", "values": values}, ())


def test_a_folder_stands_in_the_title_by_its_name_alone() -> None:
    declared = cell(**{"target.root": "/home/me/pacs/cartoon", "target.split_seed": 3})
    assert "/home/me" not in title(declared)
    assert title(declared).startswith("cartoon")
    assert "target.split_seed=3" in title(declared)
