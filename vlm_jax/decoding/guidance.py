"""Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598)."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Float, Int

from vlm_jax.decoding.protocol import Cache, ImageTokenModel
from vlm_jax.trees import Array


@dataclass(frozen=True)
class Guided:
    """An `ImageTokenModel` that moves the logits away from those without a prompt.

    `model` has the I prompts and after them as many empty ones, so that one pass computes both. The logits are the
    unconditional ones plus `scale` times (conditional - unconditional): `scale` is 1 + w of eq. 6.
    """

    model: ImageTokenModel
    scale: float

    @property
    def num_images(self) -> int:
        """The number of images I."""
        return self.model.num_images // 2

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of an image's tokens."""
        return self.model.grid

    @property
    def mask_id(self) -> int:
        """The token that stands for a masked one."""
        return self.model.mask_id

    def logits(self, tokens: Int[Array, "I gh gw"]) -> Float[Array, "I G V"]:
        """At every grid position, the logits of its image token."""
        return self._guide(self.model.logits(jnp.concatenate([tokens, tokens])))

    def empty_cache(self) -> Cache:
        """For the image tokens of every image, with and without its prompt."""
        return self.model.empty_cache()

    def decode_step(self, cache: Cache, previous: Int[Array, "I n"]) -> tuple[Float[Array, "I n V"], Cache]:
        """The logits of the n image tokens that follow those of `previous`, in reading order."""
        logits, cache = self.model.decode_step(cache, jnp.concatenate([previous, previous]))
        return self._guide(logits), cache

    def _guide(self, logits: Float[Array, "J n V"]) -> Float[Array, "I n V"]:
        conditional, unconditional = jnp.split(logits, 2)
        return conditional + (self.scale - 1) * (conditional - unconditional)
