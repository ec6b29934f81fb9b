"""Keys and values that later positions attend to: of a stream that is encoded once, and of the positions so far."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vlm_jax.config.layers import LayerStack

KeyValue = tuple[Float[Array, "I _ H _ d"], Float[Array, "I _ H _ d"]]
"""Keys and values [I, m, H, L, d] of one layer: m is K, or 1 where all K slots share them.

Heads come before positions, as the products want them: nothing is transposed again for every token.
"""

KeyValues = Sequence[KeyValue]


class Prefix(NamedTuple):
    """An image or K prompts, encoded once: what the tokens of the other stream attend to."""

    layers: list[KeyValue]
    mask: Bool[Array, "I k N"]
    """True at visible positions; k is 1 for an image."""


class KVCache(NamedTuple):
    """Keys and values of a layer at the positions so far, in arrays of a fixed length L."""

    key: Float[Array, "I K H L d"]
    value: Float[Array, "I K H L d"]
    length: Int[Array, ""]
    """How many positions are filled; every slot has as many."""

    def update(self, key: Float[Array, "I K H n d"], value: Float[Array, "I K H n d"]) -> "KVCache":
        """With those of n new positions."""
        put = jax.lax.dynamic_update_slice_in_dim
        longer = put(self.key, key, self.length, axis=3), put(self.value, value, self.length, axis=3)
        return KVCache(*longer, self.length + key.shape[3])

    def reorder(self, index: Int[Array, "I K"]) -> "KVCache":
        """The slots `index` of each image, as a beam search continues some of its texts and drops others."""
        key, value = (jax.vmap(lambda slots, places: slots[places])(x, index) for x in (self.key, self.value))
        return KVCache(key, value, self.length)

    def causal_mask(self, num_new: int) -> Bool[Array, "n L"]:
        """Which positions each of `num_new` new ones attends to: those before and itself."""
        return jnp.arange(self.key.shape[3])[None] <= self.length + jnp.arange(num_new)[:, None]


def empty_caches(settings: LayerStack, num_images: int, num_texts: int, length: int) -> list[KVCache]:
    """One cache a layer, for `length` positions of `num_texts` texts or prompts an image."""
    s = settings
    shape = (num_images, num_texts, s.num_attention_heads, length, s.hidden_size // s.num_attention_heads)
    zeros = jnp.zeros(shape, jnp.dtype(s.dtype))
    return [KVCache(zeros, zeros, jnp.int32(0))] * s.num_layers
