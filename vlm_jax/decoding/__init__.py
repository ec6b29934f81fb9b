"""Words and codes of pictures one after the other, and codes many at a time: each way a loop that is compiled whole."""

from vlm_jax.decoding.autoregressive import before
from vlm_jax.decoding.codes import CodeDecoder, code_log_probabilities
from vlm_jax.decoding.decoder import Decoded, Decoder, Special
from vlm_jax.decoding.masked import hide
from vlm_jax.decoding.trie import Trie

__all__ = ["CodeDecoder", "Decoded", "Decoder", "Special", "Trie", "before", "code_log_probabilities", "hide"]
