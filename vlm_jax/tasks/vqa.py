"""Visual question answering: classify [CLS] over the answer vocabulary, soft targets where people disagree."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from vlm_jax.config import Config
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.types import Batch


class Sums(NamedTuple):
    """Sums over questions, never means: they add up over micro-batches, devices and batches."""

    loss: Float[Array, ""]
    weight: Float[Array, ""]
    correct: Float[Array, ""]


def loss_sums(
    model: VisualLanguageModel, params: dict[str, Any], batch: Batch, config: Config, *, keys: Key[Array, " I"] | None
) -> Sums:
    """Cross-entropy with soft targets, -sum_a t_a log p_a, summed over real questions.

    A question none of whose answers is in the vocabulary has no target: it counts in the accuracy (as wrong), with
    loss zero. Label smoothing e: t becomes (1 - e) t + e / A.
    """
    logits = model.apply(
        {"params": params}, batch.image, batch.input_ids, batch.text_mask, keys=keys, method="answer_logits"
    )
    log_p = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_p, batch.answers, axis=-1)
    loss = -jnp.sum(picked * batch.answer_weights, axis=-1)
    smoothing = config.training.label_smoothing
    if smoothing:
        answered = jnp.sum(batch.answer_weights, axis=-1)
        loss = (1 - smoothing) * loss - smoothing * answered * jnp.mean(log_p, axis=-1)
    score = jnp.sum(jnp.where(batch.answers == jnp.argmax(logits, -1)[..., None], batch.answer_weights, 0), -1)
    return Sums(
        loss=jnp.sum(loss * batch.weight),
        weight=jnp.sum(batch.weight),
        correct=jnp.sum(score * batch.weight),
    )


def answer_probabilities(
    model: VisualLanguageModel,
    params: dict[str, Any],
    batch: Batch,
    *,
    image_mask: Bool[Array, "I G"] | None = None,
) -> Float[Array, "I K A"]:
    """How likely each answer class is, for each question slot."""
    logits = model.apply(
        {"params": params}, batch.image, batch.input_ids, batch.text_mask, image_mask=image_mask, method="answer_logits"
    )
    return jax.nn.softmax(logits)
