"""Words one after the other, and codes of pictures many at a time: each way a loop that is compiled whole."""

from vlm_jax.decoding.decoder import Decoded, Decoder, Special
from vlm_jax.decoding.masked import MaskedDecoder, hide
from vlm_jax.decoding.trie import Trie

__all__ = ["Decoded", "Decoder", "MaskedDecoder", "Special", "Trie", "hide"]
