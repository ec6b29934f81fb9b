"""Beam search: the most probable texts that a search of fixed width finds."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vlm_jax.config.captioning import Beam
from vlm_jax.decoding.constraints import Constraints
from vlm_jax.decoding.protocol import Cache, TextModel
from vlm_jax.decoding.ranking import top_tokens
from vlm_jax.decoding.sequences import IMPOSSIBLE, Decoded, Sequences, begin, next_logits, pick


class Beams(NamedTuple):
    """K texts that go on and the K best that have ended."""

    cache: Cache
    token: Int[Array, "I K"]
    """The last of each text, which is in no cache yet."""
    texts: Sequences
    ended: Sequences
    score: Float[Array, "I K"]
    """Of those that have ended; `IMPOSSIBLE` where there is none."""
    done: Bool[Array, " I"]
    time: Int[Array, ""]


def beam_search(model: TextModel, constraints: Constraints, settings: Beam) -> Decoded:
    """The `num_return_sequences` best of a search that follows `num_beams` texts an image.

    At each step the 2K best continuations are considered, as in transformers' `generate`. One that ends joins those
    that have ended if it is among the K best, and the K best that do not end go on. Texts without an end at
    `max_tokens` count as ended.
    """
    special, max_tokens = constraints.special, constraints.max_tokens
    count, power, forced = settings.num_beams, settings.length_penalty, len(constraints.prefix)
    cache, token, texts = begin(model, constraints, count)
    first_only = jnp.where(jnp.arange(count) == 0, 0.0, IMPOSSIBLE)[None]
    start = Beams(
        cache,
        token,
        texts._replace(log_probability=jnp.broadcast_to(first_only, texts.log_probability.shape)),
        texts,
        jnp.full(texts.log_probability.shape, IMPOSSIBLE),
        jnp.zeros(model.num_images, bool),
        jnp.int32(forced),
    )

    def step(beams: Beams) -> Beams:
        texts, time = beams.texts, beams.time
        logits, possible, cache = next_logits(model, constraints, beams.cache, beams.token, texts, time)
        # The 2K best of all are among the 2K best of each text: only of these the log-probabilities are needed.
        best, token = top_tokens(possible, min(2 * count, logits.shape[-1]))
        log_p = best - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        totals = (texts.log_probability[..., None] + log_p).reshape(model.num_images, -1)
        total, place = jax.lax.top_k(totals, min(2 * count, totals.shape[1]))
        parent = place // log_p.shape[-1]
        token_log_p, token = pick((log_p.reshape(totals.shape), token.reshape(totals.shape)), place)
        longer = pick(texts, parent).append(constraints, token, token_log_p, time)._replace(log_probability=total)

        ends = (token == special.end) | (time == max_tokens - 1)
        counts = ends & (jnp.arange(place.shape[1]) < count)[None] & (total > IMPOSSIBLE / 2) & ~beams.done[:, None]
        new_tokens = (time + 1 - forced).astype(jnp.float32)
        score = jnp.where(counts, total / new_tokens**power, IMPOSSIBLE)
        every = jax.tree.map(lambda old, new: jnp.concatenate([old, new], axis=1), beams.ended, longer)
        score, best = jax.lax.top_k(jnp.concatenate([beams.score, score], axis=1), count)
        ended = pick(every, best)

        _, going = jax.lax.top_k(jnp.where(ends, 2 * IMPOSSIBLE, total), count)
        texts, token, parent = pick((longer, token, parent), going)
        cache = [layer.reorder(parent) for layer in cache]
        largest = jnp.max(texts.log_probability, axis=1)
        longest = jnp.float32(max_tokens - forced)
        done = finished(settings, score[:, -1], largest, new_tokens, longest) | (largest <= IMPOSSIBLE / 2)
        return Beams(cache, token, texts, ended, score, beams.done | done, time + 1)

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


def finished(
    settings: Beam,
    worst: Float[Array, " I"],
    largest: Float[Array, " I"],
    new_tokens: Float[Array, ""],
    longest: Float[Array, ""],
) -> Bool[Array, " I"]:
    """Whether the search of an image is over, by `early_stopping` as transformers defines it.

    True: K texts have ended. "never": no text that goes on can become better than the `worst` of them; a
    log-probability only falls, and with a positive penalty the divisor is largest at the length `longest`. False: none
    can at its length so far, `new_tokens`. `largest` is the largest log-probability of the texts that go on.
    """
    enough = worst > IMPOSSIBLE / 2
    if settings.early_stopping is True:
        return enough
    to_the_end = settings.early_stopping == "never" and settings.length_penalty > 0
    divisor = (longest if to_the_end else new_tokens) ** settings.length_penalty
    return enough & (worst >= largest / divisor)
