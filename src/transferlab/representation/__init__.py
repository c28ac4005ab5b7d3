"""Comparisons of representations: of one set of items by two models, of two sets by one model.

How far apart two data sets lie does not say whether transfer helps: the labels may agree or not at
any distance.
"""

from transferlab.representation.cka import linear_cka, unbiased_linear_cka
from transferlab.representation.mmd import mmd2, mmd_p
from transferlab.representation.moments import coral_distance, frechet_distance, frechet_floor
from transferlab.representation.proxy import proxy_a_distance

__all__ = [
    "coral_distance",
    "frechet_distance",
    "frechet_floor",
    "linear_cka",
    "mmd2",
    "mmd_p",
    "proxy_a_distance",
    "unbiased_linear_cka",
]
