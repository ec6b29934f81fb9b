"""Texts about images token by token, and image tokens one after the other or many at a time.

A strategy is a pure function of a model that has encoded its input (`protocol`); the whole loop is compiled.
"""

from vlm_jax.decoding.autoregressive import shift_right
from vlm_jax.decoding.constraints import Special
from vlm_jax.decoding.decoder import Decoder
from vlm_jax.decoding.given_texts import GivenTexts
from vlm_jax.decoding.image_tokens import ImageTokenDecoder, token_log_probabilities
from vlm_jax.decoding.masked import mask_tokens
from vlm_jax.decoding.prefilled import Question
from vlm_jax.decoding.sequences import Decoded
from vlm_jax.decoding.trie import Trie

__all__ = [
    "Decoded",
    "Decoder",
    "GivenTexts",
    "ImageTokenDecoder",
    "Question",
    "Special",
    "Trie",
    "mask_tokens",
    "shift_right",
    "token_log_probabilities",
]
