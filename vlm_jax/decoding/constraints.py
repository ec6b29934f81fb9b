"""Constraints on the next token: masks over the vocabulary, the same for every decoding strategy."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from vlm_jax.decoding.trie import Trie


class Special(NamedTuple):
    """Token ids with a meaning of their own."""

    begin: int
    """Before the first token: [CLS]."""
    end: int
    """After the last one: [SEP]."""
    pad: int
    never: tuple[int, ...] = ()
    """Tokens that are never generated."""


@dataclass(frozen=True)
class Constraints:
    """What the texts of one decoder must keep to."""

    special: Special
    max_tokens: int
    """Tokens of a text at most, [SEP] among them; a text without an end by then is cut."""
    prefix: tuple[int, ...] = ()
    """Token ids that every text begins with."""
    trie: Trie | None = None
    """The only texts that can be generated; then `never`, `min_length` and repeats do not count."""
    min_length: int = 0
    """Tokens before [SEP], [CLS] among them, as in transformers' `MinLengthLogitsProcessor`."""
    no_repeat_ngram_size: int = 0
    """The number of tokens in a sequence that comes at most once; 0 allows it."""

    def allowed(
        self, ids: Int[Array, "I K L"], node: Int[Array, "I K"], time: Int[Array, ""], *, words: int
    ) -> Bool[Array, "I K {words}"]:
        """Which of `words` tokens may come at position `time` of texts with `ids`, at `node` of the trie."""
        if self.trie is not None:
            return self.trie.allowed(node, words)
        always, end = jnp.ones(words, bool), self.special.end
        if self.special.never:
            always = always.at[jnp.array(self.special.never)].set(False)
        if self.min_length:
            always = always.at[end].set(always[end] & (time + 1 >= self.min_length))  # [CLS] stands before position 0
        allowed = jnp.broadcast_to(always, (*node.shape, words))
        if self.no_repeat_ngram_size:
            allowed &= ~repeats(ids, time, size=self.no_repeat_ngram_size, words=words)
        return allowed


def repeats(ids: Int[Array, "I K L"], length: Int[Array, ""], *, size: int, words: int) -> Bool[Array, "I K {words}"]:
    """Tokens that would repeat a sequence of `size` tokens among the first `length` of `ids`.

    It is transformers' `NoRepeatNGramLogitsProcessor`.
    """
    windows = ids.shape[-1] - size + 1
    if windows < 1:
        return jnp.zeros((*ids.shape[:2], words), bool)
    last = jax.lax.dynamic_slice_in_dim(ids, jnp.maximum(length - size + 1, 0), size - 1, axis=2)
    begins = [ids[..., place : place + windows] == last[..., place, None] for place in range(size - 1)]
    same = jnp.stack([*begins, jnp.broadcast_to(jnp.arange(windows) + size <= length, begins[0].shape)]).all(0)
    ends = ids[..., size - 1 :]
    vocabulary = jnp.zeros(words, bool)
    return jax.vmap(jax.vmap(lambda tokens, banned: vocabulary.at[tokens].max(banned)))(ends, same)
