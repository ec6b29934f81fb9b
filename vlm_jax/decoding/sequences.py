"""The state of texts while tokens are added to them, which all decoding strategies share."""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from vlm_jax.decoding.constraints import Constraints
from vlm_jax.decoding.protocol import Cache, TextModel

IMPOSSIBLE = -1e30
"""The log-probability of a token that is not allowed: finite, so that sums of it stay numbers."""
Tree = TypeVar("Tree", bound=PyTree)


class Decoded(NamedTuple):
    """N texts of each image. The forced prefix is in `ids` and not in the log-probabilities."""

    ids: Int[Array, "I N L"]
    """Without [CLS]; `pad` after the end."""
    length: Int[Array, "I N"]
    """Tokens of a text, the forced prefix and [SEP] among them; 0 where a trie has fewer texts."""
    token_log_probability: Float[Array, "I N L"]
    """The model's, whatever the temperature and the constraints were; 0 after the end and in the prefix."""
    log_probability: Float[Array, "I N"]
    """Their sum; `IMPOSSIBLE` where there is no text."""
    score: Float[Array, "I N"]
    """The rank in a beam search: the sum divided by the number of new tokens to the power `length_penalty`."""


class Sequences(NamedTuple):
    """K texts an image, all of the same length so far."""

    ids: Int[Array, "I K L"]
    token_log_probability: Float[Array, "I K L"]
    log_probability: Float[Array, "I K"]
    length: Int[Array, "I K"]
    node: Int[Array, "I K"]
    """The place of each text in the trie."""

    def append(
        self,
        constraints: Constraints,
        token: Int[Array, "I K"],
        log_probability: Float[Array, "I K"],
        time: Int[Array, ""],
    ) -> "Sequences":
        """Every text with one more token at position `time`."""
        return Sequences(
            self.ids.at[:, :, time].set(token),
            self.token_log_probability.at[:, :, time].set(log_probability),
            self.log_probability + log_probability,
            self.length + 1,
            self.node if constraints.trie is None else constraints.trie.follow(self.node, token),
        )


def begin(model: TextModel, constraints: Constraints, num_texts: int) -> tuple[Cache, Int[Array, "I K"], Sequences]:
    """Every text at the end of its forced prefix: the cache, the last token, which is no key yet, and the state."""
    num_images, prefix, special = model.num_images, constraints.prefix, constraints.special
    cache = model.empty_cache(num_texts, constraints.max_tokens)
    prompt_ids = jnp.array([special.begin, *prefix], jnp.int32)
    prompt_ids = jnp.broadcast_to(prompt_ids, (num_images, num_texts, prompt_ids.size))
    if prefix:
        _, cache = model.decode_step(cache, prompt_ids[..., :-1])
    ids = jnp.full((num_images, num_texts, constraints.max_tokens), special.pad, jnp.int32)
    ids = ids.at[..., : len(prefix)].set(prompt_ids[..., 1:])
    node = 0 if constraints.trie is None else constraints.trie.after(prefix)
    shape = (num_images, num_texts)
    length, node = jnp.full(shape, len(prefix), jnp.int32), jnp.full(shape, node, jnp.int32)
    return cache, prompt_ids[..., -1], Sequences(ids, jnp.zeros(ids.shape), jnp.zeros(shape), length, node)


def next_logits(
    model: TextModel,
    constraints: Constraints,
    cache: Cache,
    token: Int[Array, "I K"],
    sequences: Sequences,
    time: Int[Array, ""],
) -> tuple[Float[Array, "I K V"], Float[Array, "I K V"], Cache]:
    """The logits after one more token of every text; the same, `IMPOSSIBLE` where not allowed; and the cache."""
    logits, cache = model.decode_step(cache, token[..., None])
    # Computed once: XLA would add the bias anew in each pass over the vocabulary.
    logits = jax.lax.optimization_barrier(logits[:, :, 0])
    allowed = constraints.allowed(sequences.ids, sequences.node, time, words=logits.shape[-1])
    return logits, jnp.where(allowed, logits, IMPOSSIBLE), cache


def pick(tree: Tree, index: Int[Array, "I n"]) -> Tree:
    """Of every leaf [I, K, ...] the rows `index` of each image."""
    return jax.tree.map(lambda leaf: jax.vmap(lambda rows, places: rows[places])(leaf, index), tree)
