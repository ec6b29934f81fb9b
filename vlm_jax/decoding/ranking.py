"""The most probable tokens of a vocabulary, exactly and without sorting it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

BLOCK = 128
"""Tokens of a block: 64 and 256 take as long."""


def top_tokens(logits: Float[Array, "*n V"], count: int) -> tuple[Float[Array, "*n {count}"], Int[Array, "*n {count}"]]:
    """`jax.lax.top_k` of a vocabulary: the largest logits with their tokens, and of equal ones the first tokens.

    The `count` largest lie in the `count` blocks of tokens with the largest maxima. XLA's own search on a CPU takes a
    row after the other; here it has maxima to compare, which is one pass on all cores, and then few blocks.
    """
    size = logits.shape[-1]
    num_blocks = -(-size // BLOCK)
    if num_blocks <= count:
        return tuple(jax.lax.top_k(logits, count))
    rows = logits.reshape(-1, size)
    padding = ((0, 0), (0, num_blocks * BLOCK - size))
    blocks = jnp.pad(rows, padding, constant_values=-jnp.inf).reshape(-1, num_blocks, BLOCK)
    # In the order of their tokens: of equal logits the first stays the first.
    chosen = jnp.sort(jax.lax.top_k(blocks.max(-1), count)[1], axis=-1)
    candidates = jnp.take_along_axis(blocks, chosen[:, :, None], axis=1).reshape(-1, count * BLOCK)
    largest, place = jax.lax.top_k(candidates, count)
    tokens = jnp.take_along_axis(chosen, place // BLOCK, axis=1) * BLOCK + place % BLOCK
    return largest.reshape(*logits.shape[:-1], count), tokens.reshape(*logits.shape[:-1], count)
