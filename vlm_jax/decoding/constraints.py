"""What may not come next: masks over the vocabulary, the same for every way of decoding."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def repeats(ids: Int[Array, "I K L"], length: Int[Array, ""], *, size: int, words: int) -> Bool[Array, "I K {words}"]:
    """Tokens that would complete a run of `size` tokens which `ids`, of which `length` are there, hold already."""
    windows = ids.shape[-1] - size + 1
    if windows < 1:
        return jnp.zeros((*ids.shape[:2], words), bool)
    last = jax.lax.dynamic_slice_in_dim(ids, jnp.maximum(length - size + 1, 0), size - 1, axis=2)
    begins = [ids[..., place : place + windows] == last[..., place, None] for place in range(size - 1)]
    same = jnp.stack([*begins, jnp.broadcast_to(jnp.arange(windows) + size <= length, begins[0].shape)]).all(0)
    ends = ids[..., size - 1 :]
    vocabulary = jnp.zeros(words, bool)
    return jax.vmap(jax.vmap(lambda tokens, banned: vocabulary.at[tokens].max(banned)))(ends, same)
