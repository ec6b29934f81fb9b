"""Decoding a batch of images: settings and special tokens to texts with their log-probabilities."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from vlm_jax.config.captioning import Beam, DecodingMethod, Sample
from vlm_jax.decoding.constraints import repeats
from vlm_jax.decoding.trie import Trie
from vlm_jax.errors import InputError
from vlm_jax.models.vlm import ImagePrefix, TextCache, VisualLanguageModel

IMPOSSIBLE = -1e30
"""The log-probability of what may not come: finite, so that sums of it stay numbers."""


class Special(NamedTuple):
    """Token ids with a meaning of their own."""

    begin: int
    """Before the first word: [CLS]."""
    end: int
    """After the last one: [SEP]."""
    pad: int
    never: tuple[int, ...] = ()
    """Tokens that are never said."""


class Decoded(NamedTuple):
    """N texts of each image. The forced beginning is in `ids` and is not in the log-probabilities."""

    ids: Int[Array, "I N L"]
    """Without [CLS]; `pad` after the end."""
    length: Int[Array, "I N"]
    """Tokens said, the forced beginning and [SEP] among them; 0 where there is no such text, as a trie may have few."""
    token_log_probability: Float[Array, "I N L"]
    """The model's, whatever the temperature and the constraints were; 0 after the end and where it was forced."""
    log_probability: Float[Array, "I N"]
    """Their sum; `IMPOSSIBLE` where there is no text."""
    score: Float[Array, "I N"]
    """What a beam search ranks by: the sum divided by the number of new tokens to the power `length_penalty`."""


class Texts(NamedTuple):
    """The state of K texts an image while words are added."""

    ids: Int[Array, "I K L"]
    token_log_probability: Float[Array, "I K L"]
    log_probability: Float[Array, "I K"]
    length: Int[Array, "I K"]
    node: Int[Array, "I K"]
    """Where each text stands in the trie."""


class Decoder:
    """Compiled decoding with one model and one set of settings; called again with the same shapes it is not recompiled.

    `prefix` are token ids with which every text begins, `trie` the only texts that can be said, whatever else the
    settings forbid. `max_tokens` is how many tokens a text can have, [SEP] among them; one that has no end by then is
    cut.
    """

    def __init__(
        self,
        model: VisualLanguageModel,
        settings: DecodingMethod,
        special: Special,
        *,
        max_tokens: int,
        prefix: Sequence[int] = (),
        trie: Trie | None = None,
    ) -> None:
        self.model, self.settings, self.special = model, settings, special
        self.max_tokens, self.prefix, self.trie = max_tokens, tuple(prefix), trie
        self._first_node = 0 if trie is None else trie.after(self.prefix)
        search = beam_search if isinstance(settings, Beam) else sample_texts
        self._decode = jax.jit(partial(search, self))

    def __call__(
        self,
        params: Any,
        image: Float[Array, "I h w C"] | Float[Array, "I G C"],
        *,
        image_mask: Bool[Array, "I g"] | None = None,
        keys: Key[Array, " I"] | None = None,
    ) -> Decoded:
        """The texts of a batch of images, best first; `keys`, one an image, are what drawing at random needs."""
        if keys is None and isinstance(self.settings, Sample):
            raise InputError("drawing texts at random needs keys, one an image")
        return self._decode(params, image, image_mask, keys)

    def begin(
        self, params: Any, image: Array, image_mask: Array | None, texts: int
    ) -> tuple[ImagePrefix, TextCache, Int[Array, "I K"], Texts]:
        """Images read, and every text at its forced beginning, of which the last token is still to be read."""
        image_prefix = self.model.apply(params, image, image_mask=image_mask, method="prefill_image")
        num_images, forced = len(image), jnp.array([self.special.begin, *self.prefix], jnp.int32)
        words = self.model.empty_text_cache(num_images, texts, self.max_tokens)
        prompt_ids = jnp.broadcast_to(forced, (num_images, texts, forced.size))
        if self.prefix:
            _, words = self.model.apply(params, image_prefix, words, prompt_ids[..., :-1], method="next_token_logits")
        ids = (
            jnp.full((num_images, texts, self.max_tokens), self.special.pad, jnp.int32)
            .at[..., : len(self.prefix)]
            .set(prompt_ids[..., 1:])
        )
        zeros = jnp.zeros((num_images, texts))
        node = jnp.full((num_images, texts), self._first_node, jnp.int32)
        length = jnp.full((num_images, texts), len(self.prefix), jnp.int32)
        return image_prefix, words, prompt_ids[..., -1], Texts(ids, jnp.zeros(ids.shape), zeros, length, node)

    def next_token(
        self, params: Any, image_prefix: ImagePrefix, words: TextCache, token: Int[Array, "I K"]
    ) -> tuple[Float[Array, "I K V"], TextCache]:
        """The logits after one more token of every text."""
        logits, words = self.model.apply(params, image_prefix, words, token[..., None], method="next_token_logits")
        return logits[:, :, 0], words

    def allowed(self, texts: Texts, time: Int[Array, ""], *, words: int) -> Bool[Array, "I K {words}"]:
        """Which of the vocabulary's words may come at place `time` of the texts."""
        settings, end = self.settings, self.special.end
        if self.trie is not None:
            return self.trie.allowed(texts.node, words)
        always = jnp.ones(words, bool)
        if self.special.never:
            always = always.at[jnp.array(self.special.never)].set(False)
        if settings.min_length:
            # [CLS] stands before place 0 and counts, as in transformers' MinLengthLogitsProcessor.
            always = always.at[end].set(always[end] & (time + 1 >= settings.min_length))
        allowed = jnp.broadcast_to(always, (*texts.length.shape, words))
        if settings.no_repeat_ngram_size:
            allowed &= ~repeats(texts.ids, time, size=settings.no_repeat_ngram_size, words=words)
        return allowed

    def add(
        self, texts: Texts, token: Int[Array, "I K"], log_probability: Float[Array, "I K"], time: Int[Array, ""]
    ) -> Texts:
        """Every text with one more token at place `time`."""
        node = texts.node if self.trie is None else self.trie.follow(texts.node, token)
        return Texts(
            texts.ids.at[:, :, time].set(token),
            texts.token_log_probability.at[:, :, time].set(log_probability),
            texts.log_probability + log_probability,
            texts.length + 1,
            node,
        )


def sample_texts(
    decoder: Decoder, params: Any, image: Array, image_mask: Array | None, keys: Key[Array, " I"] | None
) -> Decoded:
    """The likeliest word each time, or one drawn at random: N texts side by side."""
    settings, special = decoder.settings, decoder.special
    count = settings.num_return_sequences
    image_prefix, words, token, texts = decoder.begin(params, image, image_mask, count)
    slots = None
    if isinstance(settings, Sample):
        slots = jax.vmap(lambda key: jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(count)))(keys)

    def go_on(state):
        _, _, _, done, time = state
        return (time < decoder.max_tokens) & ~jnp.all(done)

    def step(state):
        words, token, texts, done, time = state
        logits, words = decoder.next_token(params, image_prefix, words, token)
        possible = jnp.where(decoder.allowed(texts, time, words=logits.shape[-1]), logits, IMPOSSIBLE)
        token = _choose(settings, possible, slots, time)
        token = jnp.where(done, special.pad, token)
        chosen = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0] - jax.nn.logsumexp(logits, axis=-1)
        longer = decoder.add(texts, token, jnp.where(done, 0.0, chosen), time)
        texts = longer._replace(length=jnp.where(done, texts.length, longer.length))
        return words, token, texts, done | (token == special.end), time + 1

    none_done = jnp.zeros(texts.length.shape, bool)
    start = (words, token, texts, none_done, jnp.int32(len(decoder.prefix)))
    texts = jax.lax.while_loop(go_on, step, start)[2]
    texts = texts if slots is None else _sorted(texts, texts.log_probability)
    log_probability = texts.log_probability
    return Decoded(texts.ids, texts.length, texts.token_log_probability, log_probability, log_probability)


def _choose(
    settings: DecodingMethod, logits: Float[Array, "I K V"], slots: Key[Array, "I K"] | None, time: Int[Array, ""]
) -> Int[Array, "I K"]:
    if slots is None:
        # The first of the largest, by two plain reductions: on CPU, XLA's argmax takes one word after the other.
        likeliest = logits == jnp.max(logits, axis=-1, keepdims=True)
        words = jnp.arange(logits.shape[-1], dtype=jnp.int32)
        return jnp.min(jnp.where(likeliest, words, words[-1]), axis=-1)
    logits = logits / settings.temperature
    if settings.top_k is not None:
        best, _ = jax.lax.top_k(logits, min(settings.top_k, logits.shape[-1]))
        logits = jnp.where(logits < best[..., -1:], IMPOSSIBLE, logits)
    if settings.top_p is not None:
        ranked = -jnp.sort(-logits, axis=-1)
        before = jnp.cumsum(jax.nn.softmax(ranked), axis=-1) - jax.nn.softmax(ranked)
        # A word stays while those before it hold less than p: so the first always does.
        least = jnp.min(jnp.where(before < settings.top_p, ranked, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < least, IMPOSSIBLE, logits)
    now = jax.vmap(jax.vmap(lambda key: jax.random.fold_in(key, time)))(slots)
    return jax.vmap(jax.vmap(jax.random.categorical))(now, logits).astype(jnp.int32)


def _sorted(texts: Texts, score: Float[Array, "I K"]) -> Texts:
    return _pick(texts, jnp.argsort(-score, axis=1))


def _pick(tree: Any, index: Int[Array, "I n"]) -> Any:
    """Of every leaf [I, K, ...] the rows `index` of each image."""
    return jax.tree.map(lambda leaf: jax.vmap(lambda rows, places: rows[places])(leaf, index), tree)


class Beams(NamedTuple):
    """K texts that go on and the K best that have ended."""

    words: TextCache
    token: Int[Array, "I K"]
    """The last of each text, still to be read."""
    texts: Texts
    ended: Texts
    score: Float[Array, "I K"]
    """Of those that have ended; `IMPOSSIBLE` where there is none."""
    done: Bool[Array, " I"]
    time: Int[Array, ""]


def beam_search(
    decoder: Decoder, params: Any, image: Array, image_mask: Array | None, keys: Key[Array, " I"] | None
) -> Decoded:
    """The `num_return_sequences` best of a search that keeps `num_beams` texts an image.

    At each step the 2K best continuations are looked at. One that ends joins those that have ended if it is among the K
    best, and the K best that do not end go on. With `early_stopping` True an image is done as soon as K texts have
    ended; with "never", when no text that goes on could still become better than the worst of them; with False, when
    none could at its length so far. Texts without an end when the room is full count as ended.
    """
    settings, special, max_tokens = decoder.settings, decoder.special, decoder.max_tokens
    count, power, forced = settings.num_beams, settings.length_penalty, len(decoder.prefix)
    image_prefix, words, token, texts = decoder.begin(params, image, image_mask, count)
    first_only = jnp.where(jnp.arange(count) == 0, 0.0, IMPOSSIBLE)[None]
    start = Beams(
        words,
        token,
        texts._replace(log_probability=jnp.broadcast_to(first_only, texts.log_probability.shape)),
        texts,
        jnp.full(texts.log_probability.shape, IMPOSSIBLE),
        jnp.zeros(len(image), bool),
        jnp.int32(forced),
    )

    def step(beams: Beams) -> Beams:
        texts, time = beams.texts, beams.time
        logits, words = decoder.next_token(params, image_prefix, beams.words, beams.token)
        possible = jnp.where(decoder.allowed(texts, time, words=logits.shape[-1]), logits, IMPOSSIBLE)
        # The 2K best of all are among the 2K best of each text: only of these the log-probabilities are needed.
        best, token = jax.lax.top_k(possible, min(2 * count, logits.shape[-1]))
        log_p = best - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        totals = (texts.log_probability[..., None] + log_p).reshape(len(image), -1)
        total, place = jax.lax.top_k(totals, min(2 * count, totals.shape[1]))
        parent = place // log_p.shape[-1]
        token_log_p, token = _pick((log_p.reshape(totals.shape), token.reshape(totals.shape)), place)
        longer = decoder.add(_pick(texts, parent), token, token_log_p, time)
        longer = longer._replace(log_probability=total)

        ends = (token == special.end) | (time == max_tokens - 1)
        counts = ends & (jnp.arange(place.shape[1]) < count)[None] & (total > IMPOSSIBLE / 2) & ~beams.done[:, None]
        new_tokens = (time + 1 - forced).astype(jnp.float32)
        score = jnp.where(counts, total / new_tokens**power, IMPOSSIBLE)
        every = jax.tree.map(lambda old, new: jnp.concatenate([old, new], axis=1), beams.ended, longer)
        score, best = jax.lax.top_k(jnp.concatenate([beams.score, score], axis=1), count)
        ended = _pick(every, best)

        _, going = jax.lax.top_k(jnp.where(ends, 2 * IMPOSSIBLE, total), count)
        texts, token, parent = _pick((longer, token, parent), going)
        words = words._replace(layers=_pick(words.layers, parent))
        # A log-probability only falls, and the divisor is largest for the longest text: what goes on cannot beat this.
        # With `early_stopping` False the length so far counts, as in transformers' heuristic.
        to_the_end = settings.early_stopping == "never" and power > 0
        divisor = jnp.float32(max_tokens - forced) ** power if to_the_end else new_tokens**power
        largest = jnp.max(texts.log_probability, axis=1)
        enough = score[:, -1] > IMPOSSIBLE / 2
        done = enough if settings.early_stopping is True else enough & (score[:, -1] >= largest / divisor)
        done |= largest <= IMPOSSIBLE / 2  # nothing goes on
        return Beams(words, token, texts, ended, score, beams.done | done, time + 1)

    beams = jax.lax.while_loop(lambda beams: (beams.time < max_tokens) & ~jnp.all(beams.done), step, start)
    best = slice(settings.num_return_sequences)
    ended = beams.ended
    has_text = beams.score[:, best] > IMPOSSIBLE / 2
    return Decoded(
        jnp.where(has_text[..., None], ended.ids[:, best], special.pad),
        jnp.where(has_text, ended.length[:, best], 0),
        ended.token_log_probability[:, best],
        jnp.where(has_text, ended.log_probability[:, best], IMPOSSIBLE),
        beams.score[:, best],
    )
