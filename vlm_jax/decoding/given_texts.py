"""How probable given texts are: answers to a question from a list."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from vlm_jax.decoding.constraints import Special
from vlm_jax.decoding.prefilled import PrefilledImages, Question
from vlm_jax.decoding.protocol import TextDecoder, TextModel
from vlm_jax.errors import InputError
from vlm_jax.placement import split_over_devices
from vlm_jax.trees import Array
from vlm_jax.types import Parameters

AT_ONCE = 32
"""Texts whose logits are in memory together, for each image."""


class GivenTexts:
    """Compiled log-probabilities of a list of texts about each image of a batch.

    `texts` are token ids without `special.begin` and `special.end`, which every text gets. BLIP ranks answers by these
    sums (Li et al. 2022, section 5.3). transformers' loss of an answer is minus the sum, divided by its tokens with the
    end among them.
    """

    def __init__(self, model: TextDecoder, special: Special, texts: Sequence[Sequence[int]]) -> None:
        if not texts:
            raise InputError("no text to score; give a list of at least one")
        self._model, self._special, self._count = model, special, len(texts)
        self._at_once = min(AT_ONCE, len(texts))
        rows = [*texts, *[()] * (-len(texts) % self._at_once)]  # the last group is as large as the others
        lengths = np.array([len(row) + 1 for row in rows])
        self._ids = np.full((len(rows), lengths.max()), special.end, np.int32)
        for row, text in zip(self._ids, rows, strict=True):
            row[: len(text)] = text
        self._shown = np.arange(self._ids.shape[1])[None] < lengths[:, None]
        self._score = split_over_devices(self._log_probabilities)

    def __call__(
        self,
        variables: Parameters,
        image: Float[Array, "I h w C"] | Float[Array, "I G C"],
        *,
        question: Question | None = None,
    ) -> Float[Array, "I A"]:
        """The sum of the log-probabilities of each text's tokens, the end among them."""
        return self._score(variables, image, question)[:, : self._count]

    def _log_probabilities(
        self, variables: Parameters, image: Array, question: Question | None
    ) -> Float[Array, "I rows"]:
        model = PrefilledImages.prefill(self._model, variables, image, question=question)
        groups = tuple(jnp.asarray(x).reshape(-1, self._at_once, x.shape[1]) for x in (self._ids, self._shown))
        scores = jax.lax.map(lambda group: text_log_probabilities(model, self._special, *group), groups)
        return jnp.moveaxis(scores, 0, 1).reshape(model.num_images, -1)


def text_log_probabilities(
    model: TextModel, special: Special, ids: Int[Array, "A L"], shown: Bool[Array, "A L"]
) -> Float[Array, "I A"]:
    """The sum of the log-probabilities of those tokens of each text that are `shown`, about each image."""
    count, length = ids.shape
    cache = model.empty_cache(count, length)
    read = jnp.concatenate([jnp.full((count, 1), special.begin, ids.dtype), ids[:, :-1]], axis=1)
    logits, _ = model.decode_step(cache, jnp.broadcast_to(read, (model.num_images, count, length)))
    chosen = jnp.take_along_axis(logits, ids[None, :, :, None], axis=-1)[..., 0]
    return jnp.sum(jnp.where(shown, chosen - jax.nn.logsumexp(logits, axis=-1), 0.0), axis=-1)
