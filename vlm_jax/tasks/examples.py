"""Examples that a task changes when it reads them, and their random keys."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from vlm_jax.types import Example, Text

Value = TypeVar("Value")


class ChangedExamples(Sequence[Example]):
    """Examples, each changed when it is read: `change` takes its place and the example."""

    def __init__(self, examples: Sequence[Example], change: Callable[[int, Example], Example]) -> None:
        self.unchanged, self._change = examples, change

    def __len__(self) -> int:
        return len(self.unchanged)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._change(index, self.unchanged[index])


def without_texts(examples: Sequence[Example]) -> ChangedExamples:
    """The same images with one empty text each, whatever texts they have."""
    return ChangedExamples(examples, _without_text)


def _without_text(_: int, example: Example) -> Example:
    return example._replace(texts=(Text(example.image_id, ""),))


def spread(items: Sequence[Value], most: int) -> list[Value]:
    """All of them, or `most` at equal distances."""
    places = np.linspace(0, len(items) - 1, min(len(items), most))
    return [items[place] for place in places.round().astype(int).tolist()]


def derangement(count: int, seed: int) -> Int[np.ndarray, " N"]:
    """A permutation of `count` places that leaves none of two or more where it was."""
    cycle = np.random.default_rng(seed).permutation(count)
    other = np.empty_like(cycle)
    other[cycle] = np.roll(cycle, 1)
    return other


def place_keys(seed: int, first: int, count: int) -> Key[Array, " I"]:
    """One key for each of `count` places from `first` on: however examples are batched."""
    return jax.vmap(lambda place: jax.random.fold_in(jax.random.key(seed), place))(jnp.arange(first, first + count))


def shuffled_images(examples: Sequence[Example], seed: int) -> ChangedExamples:
    """The same texts, each about another image of the set."""
    other = derangement(len(examples), seed)
    return ChangedExamples(examples, lambda index, example: example._replace(image=examples[int(other[index])].image))
