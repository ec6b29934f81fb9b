"""The training picture that is most like another: what is reached by looking something up instead of saying it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from vlm_jax.types import Example

MOST = 20_000  # training pictures that are looked through: 100 MB of vectors with 1280 channels
_ROWS = 256  # at a time: 20 MB of products with that many


def spread(examples: Sequence[Example]) -> list[Example]:
    """All examples, or `MOST` of them at equal distances."""
    places = np.linspace(0, len(examples) - 1, min(len(examples), MOST))
    return [examples[place] for place in places.round().astype(int).tolist()]


def nearest(vectors: Float[np.ndarray, "N C"], among: Float[np.ndarray, "M C"]) -> Int[np.ndarray, " N"]:
    """For each vector the row of `among` with the largest product."""
    parts = (vectors[first : first + _ROWS] for first in range(0, len(vectors), _ROWS))
    return np.concatenate([np.argmax(part @ among.T, axis=1) for part in parts])
