"""What a proof of training trains on: batches of real or random inputs, and the loss of a port."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vlm_jax.models.pretrained import Module
from vlm_jax.types import Parameters
from vlm_jax.weights.converted_model import ConvertedModel
from vlm_jax.weights.proof_texts import SENTENCES, text_inputs

Task = Literal["masked words", "text classes", "image classes", "sentence vectors"]
MASKED = 0.25  # the share of tokens whose word is to be found
Batch = dict[str, jax.Array | np.ndarray]
"""The arguments of a module, and `labels`, `pairs` or `cosines` that its loss takes."""
TARGETS = ("labels", "pairs", "cosines")


def proof_task(converted: ConvertedModel) -> Task | None:
    """What a port's head is trained for; None where that has no proof."""
    architecture = converted.architecture
    if architecture.sees or architecture.is_image_text:
        return None
    if architecture.is_image_encoder:
        return "image classes" if architecture.classes else None
    if "words" in architecture.parts:
        return "masked words"
    if "sequence" in architecture.parts:
        return "text classes"
    return "sentence vectors" if set(architecture.parts) <= {"pooler"} else None


def proof_batches(converted: ConvertedModel, task: Task, *, count: int, examples: int) -> list[Batch]:
    """`count` batches of `examples` texts or images, or of as many pairs of texts where vectors are compared."""
    return [_batch(converted, task, number, examples) for number in range(count)]


def _batch(converted: ConvertedModel, task: Task, number: int, examples: int) -> Batch:
    architecture, random = converted.architecture, np.random.default_rng(number)
    if task == "image classes":
        size = architecture.input.size
        pixels = random.normal(size=(examples, *size, 3)).astype(np.float32)
        return {"image": pixels, "labels": _class_labels(random, architecture.classes, examples)}
    rows = 2 * examples if task == "sentence vectors" else examples
    # In an order of its own for each batch: a pair of texts that came twice would have two targets.
    texts = [SENTENCES[index] for index in np.resize(random.permutation(len(SENTENCES)), rows)]
    batch = text_inputs(converted, texts, seed=number)
    if task == "sentence vectors":
        return batch | {"cosines": random.uniform(-1, 1, examples).astype(np.float32)}
    if task == "text classes":
        return batch | {"labels": _class_labels(random, architecture.classes, examples)}
    ids, vocabulary = batch["input_ids"], architecture.model.vocab_size
    chosen = batch["text_mask"] & (random.random(ids.shape) < MASKED)
    chosen[:, 0] = True  # no text is without one
    batch["input_ids"] = np.where(chosen, random.integers(5, vocabulary, ids.shape), ids).astype(np.int32)
    if architecture.pad_id is not None:  # a visible one: its row gets no gradient in transformers
        batch["input_ids"][0, 2] = architecture.pad_id
    batch["labels"] = np.where(chosen, ids, -1)
    return batch | ({"pairs": random.integers(0, 2, examples)} if "pairs" in architecture.parts else {})


def _class_labels(random: np.random.Generator, classes: int, examples: int) -> np.ndarray:
    """Random classes; numbers for a head of one class, whose cross-entropy is 0 whatever it computes."""
    if classes == 1:
        return random.normal(size=examples).astype(np.float32)
    return random.integers(0, classes, examples)


def proof_loss(module: Module, task: Task, params: Parameters, batch: Batch) -> Float[Array, ""]:
    """The loss of a port: cross-entropy, or the squared error of one class or of the cosines of sentence vectors."""
    inputs = {name: x for name, x in batch.items() if name not in TARGETS}
    if task == "image classes":
        logits = module.apply({"params": params}, inputs["image"]).logits
        return class_loss(logits, batch["labels"])
    output = module.apply({"params": params}, **inputs)
    if task == "text classes":
        return class_loss(output.sequence, batch["labels"])
    if task == "masked words":
        loss = cross_entropy(output.words, batch["labels"])
        return loss + cross_entropy(output.pairs, batch["pairs"]) if "pairs" in batch else loss
    shown = inputs["text_mask"][..., None].astype(output.text.dtype)
    vectors = jnp.sum(output.text * shown, axis=1) / jnp.sum(shown, axis=1)
    vectors = vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = jnp.split(vectors, 2)
    return jnp.mean(jnp.square(jnp.sum(first * second, axis=1) - batch["cosines"]))


def class_loss(logits: Float[Array, "B A"], labels: Int[Array, " B"] | Float[Array, " B"]) -> Float[Array, ""]:
    """The cross-entropy of classes; of one class the squared error, as transformers has it of a regression."""
    if logits.shape[-1] == 1:
        return jnp.mean(jnp.square(logits[:, 0] - labels))
    return cross_entropy(logits, labels)


def cross_entropy(logits: Float[Array, "*n A"], labels: Int[Array, "*n"]) -> Float[Array, ""]:
    """The mean over labels from 0 on."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    return -jnp.sum(jnp.where(labels >= 0, chosen, 0)) / jnp.sum(labels >= 0)
