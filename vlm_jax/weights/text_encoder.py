"""What a ported text encoder is good for by itself: masked words, vectors of sentences, and classes of texts."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from vlm_jax.data.tokenizer import Tokenizer, lower_cased
from vlm_jax.data.tokenizer_settings import read_settings
from vlm_jax.errors import InputError
from vlm_jax.models.pretrained import check_text
from vlm_jax.models.pretrained_output import PretrainedOutput
from vlm_jax.weights.converted_model import ConvertedModel
from vlm_jax.weights.filled_text import FilledText, Guess
from vlm_jax.weights.sentences import SentenceSettings, pooled, sentence_settings

BATCH = 32
BUCKETS = (16, 32, 64, 128, 256, 512)  # lengths are padded up to one of these, so that few programs are compiled
Inputs = tuple[Int[np.ndarray, "N T"], Bool[np.ndarray, "N T"], Int[np.ndarray, "N T"] | None]


def bucket_length(needed: int, most: int) -> int:
    """The length that holds `needed` tokens: one of a few, so that few programs are compiled; at most `most`."""
    return min(most, next((size for size in BUCKETS if size >= needed), needed))


class TextEncoder:
    """A ported BERT, RoBERTa or DistilBERT with its tokenizer, compiled once a length."""

    def __init__(self, converted: ConvertedModel) -> None:
        if converted.architecture.input is not None:
            raise InputError(f"{converted.origin.source} reads images; expected a text encoder")
        if not converted.tokenizer:
            raise InputError(f"no tokenizer lies beside {converted.origin.source}")
        self.tokenizer = Tokenizer.load(converted.tokenizer[0].parent)
        self._parts, self._settings = converted.architecture.parts, converted.architecture.model
        settings = self._settings
        self.tokenizer.check_fits(
            settings.vocab_size, f"the tokenizer beside {converted.origin.source} is not that of these weights"
        )
        self._unused = self.tokenizer.unused(settings.vocab_size)
        self.longest = settings.max_position_embeddings - settings.first_position
        """Tokens of the longest text, [CLS] and [SEP] included."""
        self._settings_files = converted.settings_files
        self._limit = read_settings(converted.tokenizer[0].parent).longest
        self.params = jax.tree.map(jnp.asarray, converted.params)
        module = converted.module
        self._run = jax.jit(
            lambda params, ids, mask, segments: module.apply({"params": params}, ids, mask, segments=segments)
        )

    @cached_property
    def sentences(self) -> SentenceSettings:
        """How a text becomes one vector; `InputError` where the files beside the weights say what is not supported."""
        return sentence_settings(self._settings_files, self._settings.hidden_size, self._limit)

    def encode(
        self, texts: Sequence[str], max_length: int | None = None
    ) -> tuple[Int[np.ndarray, "N T"], Bool[np.ndarray, "N T"]]:
        """Token ids and mask of each text, T being one of a few lengths; longer texts lose their end."""
        longest = min(max_length or self.longest, self.longest)
        length = bucket_length(max(self.lengths(texts)), longest)
        ids, mask = self.tokenizer.encode(texts, length)
        check_text(self._settings, ids)  # the compiled program cannot
        return ids, mask

    def lengths(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[int]:
        """The tokens of each text, or of each text and its second one, with those that frame them."""
        counts = [len(ids) + 2 for ids in self.tokenizer.tokens(texts)]
        if pairs is None:
            return counts
        between = 1 + self.tokenizer.doubles_sep
        return [count + len(ids) + between for count, ids in zip(counts, self.tokenizer.tokens(pairs), strict=True)]

    def _inputs(self, texts: Sequence[str], pairs: Sequence[str] | None, longest: int | None) -> Inputs:
        """Ids, mask and token types, None where all are 0, at one of a few lengths."""
        if pairs is None:
            return (*self.encode(texts, longest), None)
        length = bucket_length(max(self.lengths(texts, pairs)), self.longest)
        ids, mask, segments = self.tokenizer.encode_pairs(texts, pairs, length)
        check_text(self._settings, ids)
        return ids, mask, segments if self._settings.type_vocab_size > 1 else None

    def fill_mask(self, text: str, *, top: int = 5, pair: str | None = None) -> FilledText:
        """The likeliest words for each mask of a text: `fill_mask("paris is the [MASK] of france")`.

        The masks of a pair are those of both texts, and the filled text is both.
        """
        if "words" not in self._parts:
            raise InputError("this encoder was ported without its masked-word head; port BertForMaskedLM or its like")
        ids, mask, segments = self._inputs([text], None if pair is None else [pair], None)
        places = np.flatnonzero(ids[0] == self.tokenizer.mask_id).tolist()
        if not places:
            raise InputError(f"the text holds no {self.tokenizer.mask_token}; put one where the word is wanted")
        logits = self._run(self.params, ids, mask, segments).words[0, np.array(places)]
        rows = logits.shape[-1]
        if not 1 <= top <= rows - len(self._unused):
            raise InputError(f"top is {top}; expected 1 to {rows - len(self._unused)}, the tokens that there are")
        # The share of a row that no token has stays its own, as in transformers; it is never predicted.
        shares = jax.nn.softmax(logits).at[:, np.array(self._unused, int)].set(-1)
        probabilities, words = jax.device_get(jax.lax.top_k(shares, top))
        masks = []
        for place, row, guessed in zip(places, probabilities, words.tolist(), strict=True):
            texts = [self._with_words(ids[0], {place: word}) for word in guessed]
            masks.append(tuple(map(Guess, map(self.tokenizer.token, guessed), map(float, row), texts)))
        return FilledText(self._with_words(ids[0], dict(zip(places, words[:, 0].tolist(), strict=True))), tuple(masks))

    def _with_words(self, ids: Int[np.ndarray, " T"], words: Mapping[int, int]) -> str:
        """The text of token ids with other words at some places."""
        return self.tokenizer.decode([words.get(place, token) for place, token in enumerate(ids.tolist())])

    def class_logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Float[np.ndarray, "N A"]:
        """The logits of the classes of each text, or of each pair, by an encoder with a sequence head."""
        outputs = self._outputs(texts, None, pairs)
        return np.concatenate([np.asarray(output.sequence, np.float32)[:count] for output, _, count in outputs])

    def _outputs(
        self, texts: Sequence[str], longest: int | None, pairs: Sequence[str] | None = None
    ) -> Iterator[tuple[PretrainedOutput, Bool[np.ndarray, "N T"], int]]:
        """The encoder's outputs of each batch of texts, its mask, and how many of its rows are real."""
        for begin in range(0, len(texts), BATCH):
            sides = [None if side is None else list(side[begin : begin + BATCH]) for side in (texts, pairs)]
            count = len(sides[0])
            rest = [""] * (BATCH - count if len(texts) > BATCH else 0)
            ids, mask, segments = self._inputs(*(side and side + rest for side in sides), longest)
            yield self._run(self.params, ids, mask, segments), mask, count

    def embed(
        self, texts: Sequence[str], *, normalize: bool | None = None, max_length: int | None = None
    ) -> Float[np.ndarray, "N D"]:
        """One vector a text, as the settings of sentence-transformers beside the weights say, [N, D].

        Without such files it is the mean of the last layer over all tokens (Reimers and Gurevych 2019, section 3). Its
        length is 1, so that a product of two is their cosine. `normalize` and `max_length` come before the files.
        """
        if max_length is not None and max_length < 3:
            raise InputError(f"max_length is {max_length}; expected tokens from 3 on, [CLS] and [SEP] included")
        settings = self.sentences
        longest = settings.longest if max_length is None else max_length
        prompted = [settings.prompt + text for text in texts]
        prompted = [lower_cased(text) for text in prompted] if settings.lower_case else prompted
        rows = [
            pooled(np.asarray(output.text, np.float32), mask, settings.pooling)[:count]
            for output, mask, count in self._outputs(prompted, longest)
        ]
        vectors = np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)
        length_one = settings.normalize if normalize is None else normalize
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if length_one and rows else vectors
