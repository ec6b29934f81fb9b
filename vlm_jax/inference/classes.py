"""From the logits of a classifier to its most probable classes."""

from collections.abc import Callable

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from vlm_jax.errors import InputError
from vlm_jax.inference.results import Classes
from vlm_jax.weights.converted_model import ConvertedModel

TOP = 5


def class_names(converted: ConvertedModel) -> tuple[str, ...]:
    """The names of the classes, in order."""
    return converted.labels or tuple(f"class {index}" for index in range(converted.architecture.classes))


def class_activation(converted: ConvertedModel) -> Callable[[ArrayLike], jax.Array]:
    """From logits to probabilities, as transformers' pipelines: each by itself where classes do not exclude each other.

    `InputError` where the head gives numbers and no classes.
    """
    kind = converted.config.get("problem_type")
    if kind == "regression":
        return _refuse_numbers
    return (
        jax.nn.sigmoid
        if kind == "multi_label_classification" or converted.architecture.classes == 1
        else jax.nn.softmax
    )


def _refuse_numbers(logits: ArrayLike) -> jax.Array:
    raise InputError("config.json says problem_type = 'regression': the head gives numbers, and no probabilities")


def number_of_classes(top: int | None, labels: tuple[str, ...]) -> int:
    """How many classes are returned: `top`, where it is given; `InputError` where there are not so many."""
    if top is None:
        return min(TOP, len(labels))
    if not 1 <= top <= len(labels):
        raise InputError(f"top is {top}; expected 1 to {len(labels)}, the classes")
    return top


def ranked(probabilities: Float[np.ndarray, " A"], labels: tuple[str, ...], top: int) -> Classes:
    """The `top` most probable classes, the best first."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    pairs = tuple((labels[index], float(probabilities[index])) for index in order)
    return Classes(*pairs[0], pairs)
