"""Maximum mean discrepancy with a Gaussian kernel, and its permutation test.

Source: Gretton et al., A Kernel Two-Sample Test, JMLR 2012.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import pdist, squareform

from transferlab.representation.arrays import Floats, two_samples


def mmd2(x: ArrayLike, y: ArrayLike) -> float:
    """Unbiased squared MMD with the kernel exp(-d^2 / s), s the median of pooled d^2.

    The median is over all pairs of different items of both samples; where more than half of these
    coincide, s is their mean.

    Args:
        x: (n, D).
        y: (m, D).

    Returns:
        about 0, on either side, for samples of one distribution; at most 2.

    Raises:
        ValueError: shapes that do not fit, or values that are not finite.
    """
    first, second = two_samples(x, y)
    member = np.arange(len(first) + len(second)) < len(first)
    return float(_statistic(_kernel(first, second), member[None])[0])


def mmd_p(x: ArrayLike, y: ArrayLike, permutations: int = 200, seed: int = 0) -> float:
    """Share of random exchanges of items whose MMD is at least as large, the one found included.

    Args:
        x: (n, D).
        y: (m, D).
        permutations: at least 1.
        seed: of the exchanges.

    Returns:
        p in [1 / (permutations + 1), 1] of the samples coming from one distribution.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or no permutations.
    """
    if permutations < 1:
        raise ValueError(f"permutations={permutations}: expected at least 1.")
    first, second = two_samples(x, y)
    kernel = _kernel(first, second)
    member = np.arange(len(kernel)) < len(first)
    rng = np.random.default_rng(seed)
    null = _statistic(kernel, np.stack([rng.permutation(member) for _ in range(permutations)]))
    found = _statistic(kernel, member[None])[0]
    return float((1 + (null >= found - 1e-12).sum()) / (1 + permutations))


def _kernel(first: Floats, second: Floats) -> Floats:
    """Return the (n + m, n + m) kernel with zeros on its diagonal."""
    distances = pdist(np.concatenate([first, second]), "sqeuclidean")
    scale = float(np.median(distances)) or float(distances.mean()) or 1.0
    return np.asarray(squareform(np.exp(-distances / scale)))


def _statistic(kernel: Floats, members: np.ndarray) -> Floats:
    """Return (P,) statistics for (P, n + m) memberships of the first sample."""
    a = members.astype(np.float64)
    b = 1 - a
    of_a, of_b = a @ kernel, b @ kernel
    n, m = a[0].sum(), b[0].sum()
    within = (of_a * a).sum(axis=1) / (n * (n - 1)) + (of_b * b).sum(axis=1) / (m * (m - 1))
    return np.asarray(within - 2 * (of_a * b).sum(axis=1) / (n * m))
