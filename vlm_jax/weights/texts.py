"""What a ported text encoder is good for by itself: masked words, and vectors of sentences."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vlm_jax.config import ImageEncoder
from vlm_jax.data.text import Tokenizer
from vlm_jax.errors import InputError
from vlm_jax.models.pretrained import check_text
from vlm_jax.weights.ported import Ported

BATCH = 32
BUCKETS = (16, 32, 64, 128, 256, 512)  # lengths are padded up to one of these, so that few programs are compiled


class Guess(NamedTuple):
    """A word for a mask."""

    token: str
    probability: float
    text: str
    """The text with the word in it."""


class TextEncoder:
    """A ported BERT, RoBERTa or DistilBERT with its tokenizer, compiled once a length."""

    def __init__(self, ported: Ported) -> None:
        if isinstance(ported.architecture.model, ImageEncoder):
            raise InputError(f"{ported.origin.source} is a CNN; expected a text encoder")
        if not ported.tokenizer:
            raise InputError(f"no tokenizer lies beside {ported.origin.source}")
        self.tokenizer = Tokenizer.load(ported.tokenizer[0].parent)
        self.tokenizer.check_size(ported.architecture.model.text.vocabulary_size, exact=False)
        self._parts, self._settings = ported.architecture.parts, ported.architecture.model
        text = self._settings.text
        self._longest = text.max_positions - text.first_position
        self._params = jax.tree.map(jnp.asarray, ported.params)
        module = ported.module
        self._run = jax.jit(lambda params, ids, mask: module.apply({"params": params}, ids, mask))

    def _encode(self, texts: Sequence[str], max_length: int | None) -> tuple[np.ndarray, np.ndarray]:
        longest = min(max_length or self._longest, self._longest)
        needed = max(len(ids) for ids in self.tokenizer.tokens(texts)) + 2
        length = min(longest, next((size for size in BUCKETS if size >= needed), needed))
        ids, mask = self.tokenizer.encode(texts, length)
        check_text(self._settings, ids)  # the compiled program cannot
        return ids, mask

    def fill_mask(self, text: str, *, top: int = 5) -> list[list[Guess]]:
        """The likeliest words for each mask of a text, best first: `fill_mask("paris is the [MASK] of france")`."""
        if "words" not in self._parts:
            raise InputError("this encoder was ported without its masked-word head; port BertForMaskedLM or its like")
        ids, mask = self._encode([text], None)
        places = np.flatnonzero(ids[0] == self.tokenizer.mask_id).tolist()
        if not places:
            raise InputError(f"the text holds no {self.tokenizer.mask_token}; put one where the word is wanted")
        logits = self._run(self._params, ids, mask).words[0, np.array(places)]
        probabilities, words = jax.device_get(jax.lax.top_k(jax.nn.softmax(logits), top))
        return [
            [
                Guess(self.tokenizer.token(word), float(p), self.tokenizer.decode(_with(ids[0], place, word)))
                for p, word in zip(row, guessed, strict=True)
            ]
            for place, row, guessed in zip(places, probabilities, words.tolist(), strict=True)
        ]

    def embed(
        self, texts: Sequence[str], *, normalize: bool = True, max_length: int | None = None
    ) -> Float[np.ndarray, "N D"]:
        """The mean of the last layer over all tokens of each text (Reimers and Gurevych 2019, section 3), [N, D].

        With `normalize` of length 1, so that a product of two is their cosine.
        """
        rows = []
        for begin in range(0, len(texts), BATCH):
            some = list(texts[begin : begin + BATCH])
            filled = some + [""] * (BATCH - len(some) if len(texts) > BATCH else 0)
            ids, mask = self._encode(filled, max_length)
            states = np.asarray(self._run(self._params, ids, mask).text)
            weights = mask[:, :, None].astype(np.float32)
            rows.append(((states * weights).sum(1) / weights.sum(1))[: len(some)])
        vectors = np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if normalize and rows else vectors


def _with(ids: np.ndarray, place: int, word: int) -> np.ndarray:
    changed = ids.copy()
    changed[place] = word
    return changed
