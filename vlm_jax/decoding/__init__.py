"""Words one after the other: greedily, drawn at random, or by beam search, each a loop that is compiled whole."""

from vlm_jax.decoding.decoder import Decoded, Decoder, Special
from vlm_jax.decoding.trie import Trie

__all__ = ["Decoded", "Decoder", "Special", "Trie"]
