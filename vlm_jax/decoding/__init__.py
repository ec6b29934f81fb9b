"""Words and image tokens of images one after the other, and image tokens many at a time: each way a loop that is
compiled whole."""

from vlm_jax.decoding.autoregressive import shift_right
from vlm_jax.decoding.decoder import Decoded, Decoder, Special
from vlm_jax.decoding.image_tokens import ImageTokenDecoder, token_log_probabilities
from vlm_jax.decoding.masked import mask_tokens
from vlm_jax.decoding.trie import Trie

__all__ = [
    "Decoded",
    "Decoder",
    "ImageTokenDecoder",
    "Special",
    "Trie",
    "mask_tokens",
    "shift_right",
    "token_log_probabilities",
]
