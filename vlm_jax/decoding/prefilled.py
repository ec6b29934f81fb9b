"""A model that has encoded its images or prompts, as decoding strategies use it."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from vlm_jax.decoding.protocol import Cache, TextDecoder
from vlm_jax.models.kv_cache import Prefix
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.trees import Array
from vlm_jax.types import Parameters


class Question(NamedTuple):
    """A question about each image."""

    input_ids: Int[Array, "I T"]
    text_mask: Bool[Array, "I T"]


@dataclass(frozen=True)
class PrefilledImages:
    """A `TextModel`: the next token of texts about images, or of answers about images with a question each.

    Images and questions are encoded once.
    """

    model: TextDecoder
    variables: Parameters
    prefix: Prefix

    @classmethod
    def prefill(
        cls,
        model: TextDecoder,
        variables: Parameters,
        image: Float[Array, "I h w C"] | Float[Array, "I G C"],
        image_mask: Bool[Array, "I g"] | None = None,
        question: Question | None = None,
    ) -> "PrefilledImages":
        """Encode the images, with the questions where the model reads such."""
        bound = model.bind(variables)
        if question is None:
            return cls(model, variables, bound.prefill_image(image, image_mask=image_mask))
        return cls(model, variables, bound.prefill_question(image, *question))

    @property
    def num_images(self) -> int:
        """The number of images I."""
        return len(self.prefix.mask)

    def empty_cache(self, num_texts: int, length: int) -> Cache:
        """For `length` tokens of `num_texts` texts an image."""
        return self.model.empty_cache(self.num_images, num_texts, length)

    def decode_step(self, cache: Cache, ids: Int[Array, "I K n"]) -> tuple[Float[Array, "I K n V"], Cache]:
        """At each of n new tokens of every text, the logits of the next one."""
        # Bound anew at each step: Flax does not let a bound module into the body of a loop.
        return self.model.bind(self.variables).next_token_logits(self.prefix, cache, ids)


@dataclass(frozen=True)
class PrefilledPrompts:
    """An `ImageTokenModel`: the image tokens of an image for each prompt, which are encoded once."""

    model: VisualLanguageModel
    variables: Parameters
    prefix: Prefix
    grid: tuple[int, int]
    mask_id: int

    @classmethod
    def prefill(
        cls,
        model: VisualLanguageModel,
        variables: Parameters,
        ids: Int[Array, "I T"],
        mask: Bool[Array, "I T"],
        *,
        grid: tuple[int, int],
        mask_id: int,
    ) -> "PrefilledPrompts":
        """Encode the prompts."""
        prefix = model.bind(variables).prefill_prompt(ids[:, None], mask[:, None])
        return cls(model, variables, prefix, grid, mask_id)

    @property
    def num_images(self) -> int:
        """The number of images I."""
        return len(self.prefix.mask)

    def repeat(self, count: int) -> "PrefilledPrompts":
        """Each prompt `count` times, one after the other."""
        return replace(self, prefix=jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), self.prefix))

    def first(self, count: int) -> "PrefilledPrompts":
        """The first `count` prompts."""
        return replace(self, prefix=jax.tree.map(lambda x: x[:count], self.prefix))

    def logits(self, tokens: Int[Array, "I gh gw"]) -> Float[Array, "I G V"]:
        """At every grid position, the logits of its image token."""
        return self.model.bind(self.variables).image_token_logits(self.prefix, tokens)[:, 0]

    def empty_cache(self) -> Cache:
        """For the image tokens of every image."""
        rows, columns = self.grid
        return self.model.empty_cache(self.num_images, 1, rows * columns)

    def decode_step(self, cache: Cache, previous: Int[Array, "I n"]) -> tuple[Float[Array, "I n V"], Cache]:
        """The logits of the n image tokens that follow those of `previous`, in reading order."""
        bound = self.model.bind(self.variables)
        logits, cache = bound.next_image_token_logits(self.prefix, cache, previous, self.grid)
        return logits[:, 0], cache
