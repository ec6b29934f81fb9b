"""A closed set of texts as a tree of tokens, for decoding that can generate nothing else."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from vlm_jax.errors import InputError

NOTHING = -1


class Trie(NamedTuple):
    """The tokens that may follow at each of N nodes, at most B, and the node that each leads to; 0 is the root."""

    tokens: Int[np.ndarray, "N B"]
    """`NOTHING` fills up."""
    nodes: Int[np.ndarray, "N B"]

    @classmethod
    def build(cls, texts: Iterable[Sequence[int]], *, end: int) -> "Trie":
        """The trie of texts given as token ids; after each text comes `end`."""
        children: list[dict[int, int]] = [{}]
        for text in texts:
            node = 0
            for token in (*text, end):
                if token not in children[node]:
                    children.append({})
                    children[node][token] = len(children) - 1
                node = children[node][token]
        if not children[0]:
            raise InputError("the texts to choose from are none; give at least one")
        shape = (len(children), max(map(len, children)))
        tokens, nodes = np.full(shape, NOTHING, np.int32), np.zeros(shape, np.int32)
        for row, following in enumerate(children):
            tokens[row, : len(following)] = list(following)
            nodes[row, : len(following)] = list(following.values())
        return cls(tokens, nodes)

    def after(self, beginning: Sequence[int]) -> int:
        """The node that a beginning leads to; `InputError` where no text begins so."""
        node = 0
        for token in beginning:
            (places,) = np.nonzero(self.tokens[node] == token)
            if not places.size:
                raise InputError("none of the texts to choose from has the forced beginning; leave either out")
            node = int(self.nodes[node, places[0]])
        return node

    def allowed(self, node: Int[Array, "I K"], words: int) -> Bool[Array, "I K {words}"]:
        """Which of `words` tokens may come next."""
        tokens = jnp.asarray(self.tokens)[node]
        vocabulary = jnp.zeros(words, bool)
        # A negative index would count from the end: it is sent beyond the end, where it is dropped.
        beyond = jnp.where(tokens == NOTHING, words, tokens)
        return jax.vmap(jax.vmap(lambda places: vocabulary.at[places].set(True, mode="drop")))(beyond)

    def follow(self, node: Int[Array, "I K"], token: Int[Array, "I K"]) -> Int[Array, "I K"]:
        """The node after a token; the root where the token may not come."""
        here = jnp.asarray(self.tokens)[node] == token[..., None]
        return jnp.sum(jnp.where(here, jnp.asarray(self.nodes)[node], 0), axis=-1)
