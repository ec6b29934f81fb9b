"""Greedy decoding and sampling: N texts an image, side by side."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vlm_jax.config.captioning import Greedy, Sample
from vlm_jax.decoding.constraints import Constraints
from vlm_jax.decoding.protocol import TextModel
from vlm_jax.decoding.ranking import top_tokens
from vlm_jax.decoding.sequences import IMPOSSIBLE, Decoded, begin, next_logits, pick


def sample(
    model: TextModel, constraints: Constraints, settings: Greedy | Sample, keys: Key[Array, " I"] | None
) -> Decoded:
    """The most probable token each time, or one sampled at random; `keys`, one an image, are for the latter."""
    count, special = settings.num_return_sequences, constraints.special
    cache, token, sequences = begin(model, constraints, count)
    text_keys = None
    if isinstance(settings, Sample):
        text_keys = jax.vmap(lambda key: jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(count)))(keys)

    def unfinished(state):
        _, _, _, done, time = state
        return (time < constraints.max_tokens) & ~jnp.all(done)

    def step(state):
        cache, token, sequences, done, time = state
        logits, possible, cache = next_logits(model, constraints, cache, token, sequences, time)
        token = (
            most_probable_token(possible) if text_keys is None else sampled_token(settings, possible, text_keys, time)
        )
        token = jnp.where(done, special.pad, token)
        chosen = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0] - jax.nn.logsumexp(logits, axis=-1)
        longer = sequences.append(constraints, token, jnp.where(done, 0.0, chosen), time)
        sequences = longer._replace(length=jnp.where(done, sequences.length, longer.length))
        return cache, token, sequences, done | (token == special.end), time + 1

    none_done = jnp.zeros(sequences.length.shape, bool)
    start = (cache, token, sequences, none_done, jnp.int32(len(constraints.prefix)))
    sequences = jax.lax.while_loop(unfinished, step, start)[2]
    if text_keys is not None:
        sequences = pick(sequences, jnp.argsort(-sequences.log_probability, axis=1))
    log_probability = sequences.log_probability
    return Decoded(
        sequences.ids, sequences.length, sequences.token_log_probability, log_probability, score=log_probability
    )


def most_probable_token(logits: Float[Array, "I K V"]) -> Int[Array, "I K"]:
    """The first of the largest, by two plain reductions: on CPU, XLA's argmax takes one token after the other."""
    largest = logits == jnp.max(logits, axis=-1, keepdims=True)
    tokens = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    return jnp.min(jnp.where(largest, tokens, tokens[-1]), axis=-1)


def sampled_token(
    settings: Sample, logits: Float[Array, "I K V"], keys: Key[Array, "I K"], time: Int[Array, ""]
) -> Int[Array, "I K"]:
    """Among the `top_k` most probable tokens, and those that together have the probability `top_p`.

    Holtzman et al. 2020, arXiv:1904.09751, section 3.1: the smallest set of tokens whose probability reaches p.
    """
    logits = logits / settings.temperature
    if settings.top_k is not None:
        best, _ = top_tokens(logits, min(settings.top_k, logits.shape[-1]))
        logits = jnp.where(logits < best[..., -1:], IMPOSSIBLE, logits)
    if settings.top_p is not None:
        ranked = -jnp.sort(-logits, axis=-1)
        before = jnp.cumsum(jax.nn.softmax(ranked), axis=-1) - jax.nn.softmax(ranked)
        # A token stays while those before it have less than p: the first always does.
        least = jnp.min(jnp.where(before < settings.top_p, ranked, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < least, IMPOSSIBLE, logits)
    step_keys = jax.vmap(jax.vmap(lambda key: jax.random.fold_in(key, time)))(keys)
    return jax.vmap(jax.vmap(jax.random.categorical))(step_keys, logits).astype(jnp.int32)
