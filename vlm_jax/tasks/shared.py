"""What tasks have in common: sums that a train step adds up, and examples whose pictures are exchanged."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from vlm_jax.types import Example


class Sums(NamedTuple):
    """Sums over questions or words, never means: they add up over micro-batches, devices and batches."""

    loss: Float[Array, ""]
    weight: Float[Array, ""]
    """How many there were: what the loss is divided by."""
    correct: Float[Array, ""]
    examples: Float[Array, ""]
    """Texts: questions, or captions of many words."""


class ShuffledImages(Sequence[Example]):
    """The same texts, each about another picture of the set: a permutation that leaves none of two or more in place."""

    def __init__(self, examples: Sequence[Example], seed: int) -> None:
        self._examples = examples
        cycle = np.random.default_rng(seed).permutation(len(examples))
        self._other = np.empty_like(cycle)
        self._other[cycle] = np.roll(cycle, 1)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._examples[index]._replace(image=self._examples[int(self._other[index])].image)
