"""What tasks have in common: sums that a train step adds up, fresh parameters, examples that are changed when read."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from vlm_jax.config.tasks import Config
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.types import Example, Text

PLAIN = 1.0  # levels of 255: an image whose pixels differ by less (standard deviation) shows nothing


class Sums(NamedTuple):
    """Sums over questions or words, never means: they add up over micro-batches, devices and batches."""

    loss: Float[Array, ""]
    weight: Float[Array, ""]
    """How many there were: what the loss is divided by."""
    correct: Float[Array, ""]
    examples: Float[Array, ""]
    """Texts: questions, or captions of many words."""


class Task:
    """What a task has unless it says otherwise."""

    answers: tuple[str, ...] = ()
    """What the classes of its head mean."""
    metric = ""
    """The score that the best checkpoint is chosen by, the higher the better."""
    scores: tuple[str, ...] = ()
    """What its scores are called; a kind of question may follow (`accuracy/yes_no`), and baselines have their own."""
    shuffled = ""
    """The baseline with exchanged inputs, such as `shuffled_images`; empty where there is none."""
    contact_sheets = False
    """Whether each validation draws a sheet of images."""

    @classmethod
    def metric_of(cls, config: Config) -> str:
        """The `metric` of a config's task, where it depends on the config."""
        return cls.metric

    def prepare(self, examples: Sequence[Example]) -> Sequence[Example]:
        """The examples of a split as the task reads them."""
        return examples

    def learn_from(self, train: Sequence[Example]) -> None:
        """Take from the training set, as `prepare` left it, what the loss must know; before a step is made."""

    def start(self, params: dict[str, Any], key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters as a run begins with them, before what its sources give."""
        return params

    def reach(self, train: Sequence[Example], validation: Sequence[Example]) -> list[str]:
        """Lines for a person before training: references of an item, and what the score of `metric` can reach."""
        return []

    def metadata(self) -> dict[str, Any]:
        """What else a result must say, beside its scores."""
        return {}

    def files(self, predictions: Sequence[Any]) -> dict[str, Any]:
        """Further files of a scored split, by name, as JSON."""
        return {}


def init_params(model: VisualLanguageModel, encode: ExampleEncoder, key: Key[Array, ""], *, method: str) -> Any:
    """Fresh float32 parameters of what `method` of the model computes from one image and one text."""
    image = jnp.zeros((1, *encode.image.size, 3))
    ids = jnp.zeros((1, 1, encode.max_length), jnp.int32)
    return model.init(key, image, ids, jnp.ones(ids.shape, bool), method=method)["params"]


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
    """The same images with one empty text each: what has been said of them is not looked at."""
    return ChangedExamples(examples, lambda _, example: example._replace(texts=(Text(example.image_id, ""),)))


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
