"""Texts about a batch of images, compiled whole."""

from collections.abc import Sequence
from functools import partial

import jax
from jaxtyping import Bool, Float, Key

from vlm_jax.config.captioning import Beam, DecodingMethod, Sample
from vlm_jax.decoding.beam_search import beam_search
from vlm_jax.decoding.constraints import Constraints, Special
from vlm_jax.decoding.prefilled import PrefilledImages, Question
from vlm_jax.decoding.protocol import TextDecoder, TextModel
from vlm_jax.decoding.sampling import sample
from vlm_jax.decoding.sequences import Decoded
from vlm_jax.decoding.trie import Trie
from vlm_jax.errors import InputError
from vlm_jax.placement import split_over_devices
from vlm_jax.trees import Array
from vlm_jax.types import Parameters


def generate(
    model: TextModel, constraints: Constraints, settings: DecodingMethod, keys: Key[jax.Array, " I"] | None
) -> Decoded:
    """Texts about every image, by the strategy of `settings`."""
    if isinstance(settings, Beam):
        return beam_search(model, constraints, settings)
    return sample(model, constraints, settings, keys)


class Decoder:
    """Compiled decoding with one model and one set of settings; called again with the same shapes it is not recompiled.

    `prefix`, `trie` and `max_tokens` are those of `Constraints`; `InputError` where no text of the trie begins with the
    prefix.
    """

    def __init__(
        self,
        model: TextDecoder,
        settings: DecodingMethod,
        special: Special,
        *,
        max_tokens: int,
        prefix: Sequence[int] = (),
        trie: Trie | None = None,
    ) -> None:
        if trie is not None:
            trie.after(prefix)
        self.settings, self._prefill = settings, partial(PrefilledImages.prefill, model)
        self.constraints = Constraints(
            special, max_tokens, tuple(prefix), trie, settings.min_length, settings.no_repeat_ngram_size
        )
        self._decode = split_over_devices(self._generate)

    def __call__(
        self,
        variables: Parameters,
        image: Float[Array, "I h w C"] | Float[Array, "I G C"],
        *,
        image_mask: Bool[Array, "I g"] | None = None,
        question: Question | None = None,
        keys: Key[jax.Array, " I"] | None = None,
    ) -> Decoded:
        """The texts of a batch of images, best first; sampling needs `keys`, one an image.

        With a `question` they are answers of a model that reads questions.
        """
        if keys is None and isinstance(self.settings, Sample):
            raise InputError("sampling needs keys, one an image")
        return self._decode(variables, image, image_mask, question, keys)

    def _generate(
        self,
        variables: Parameters,
        image: Array,
        image_mask: Array | None,
        question: Question | None,
        keys: Key[jax.Array, " I"] | None,
    ) -> Decoded:
        prefilled = self._prefill(variables, image, image_mask, question)
        return generate(prefilled, self.constraints, self.settings, keys)
