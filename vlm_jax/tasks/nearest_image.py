"""The training image that is most like another: what is reached by looking something up instead of saying it."""

import numpy as np
from jaxtyping import Float, Int

MOST = 20_000  # training images that are looked through: 100 MB of vectors with 1280 channels
_ROWS = 256  # at a time: 20 MB of products with that many


def nearest(vectors: Float[np.ndarray, "N C"], among: Float[np.ndarray, "M C"]) -> Int[np.ndarray, " N"]:
    """For each vector the row of `among` with the largest product."""
    return nearest_few(vectors, among, 1)[:, 0]


def nearest_few(
    vectors: Float[np.ndarray, "N C"], among: Float[np.ndarray, "M C"], count: int
) -> Int[np.ndarray, "N K"]:
    """For each vector the `count` rows of `among`, or all M, with the largest products, the largest first.

    Of equal products the earlier row comes first.
    """
    parts = (vectors[first : first + _ROWS] @ among.T for first in range(0, len(vectors), _ROWS))
    return np.concatenate([_largest(part, min(count, len(among))) for part in parts])


def _largest(products: Float[np.ndarray, "N M"], count: int) -> Int[np.ndarray, "N K"]:
    """Places of the largest in each row; what is chosen is overwritten."""
    chosen = []
    for _ in range(count):
        chosen.append(np.argmax(products, axis=1))
        np.put_along_axis(products, chosen[-1][:, None], -np.inf, axis=1)
    return np.stack(chosen, axis=1)
