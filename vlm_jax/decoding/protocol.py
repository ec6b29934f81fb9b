"""The little that a decoding strategy knows of a model: a prefix that is there already, a cache and one step."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int

from vlm_jax.models.kv_cache import KVCache, Prefix
from vlm_jax.trees import Array

Cache = list[KVCache]
"""One a layer."""


@runtime_checkable
class TextModel(Protocol):
    """Predicts the tokens of K texts about each of I images."""

    @property
    def num_images(self) -> int:
        """The number of images I."""

    def empty_cache(self, num_texts: int, length: int) -> Cache:
        """For `length` tokens of `num_texts` texts an image."""

    def decode_step(self, cache: Cache, ids: Int[Array, "I K n"]) -> tuple[Float[Array, "I K n V"], Cache]:
        """At each of n new tokens of every text, the logits of the next one."""


@runtime_checkable
class TextDecoder(Protocol):
    """A Flax module that predicts the tokens of texts about what it encoded once, as `PrefilledImages` binds it."""

    def empty_cache(self, num_images: int, num_texts: int, length: int) -> Cache:
        """For `length` tokens of `num_texts` texts an image."""

    def next_token_logits(
        self, prefix: Prefix, cache: Cache, ids: Int[Array, "I K n"]
    ) -> tuple[Float[Array, "I K n V"], Cache]:
        """At each of n new tokens of every text, the logits of the next one."""


@runtime_checkable
class ImageTokenModel(Protocol):
    """Predicts the image tokens of an image for each of I prompts."""

    @property
    def num_images(self) -> int:
        """The number of images I."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of an image's tokens."""

    @property
    def mask_id(self) -> int:
        """The token that stands for a masked one: the codebook size."""

    def logits(self, tokens: Int[Array, "I gh gw"]) -> Float[Array, "I G V"]:
        """At every grid position, the logits of its image token."""

    def empty_cache(self) -> Cache:
        """For the image tokens of every image."""

    def decode_step(self, cache: Cache, previous: Int[Array, "I n"]) -> tuple[Float[Array, "I n V"], Cache]:
        """The logits of the n image tokens that follow those of `previous`, in reading order."""
