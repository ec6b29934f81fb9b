"""Image tokens of images one after the other, in reading order: the autoregressive row beside masked decoding."""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from vlm_jax.trees import Array

if TYPE_CHECKING:
    from vlm_jax.decoding.image_tokens import ImageTokenDecoder


def shift_right(tokens: Int[Array, "I gh gw"], *, mask_id: int) -> Int[Array, "I gh gw"]:
    """What each cell is asked for by: the image token before it in reading order, and a hidden one before the first."""
    flat = tokens.reshape(len(tokens), -1)
    return jnp.pad(flat[:, :-1], ((0, 0), (1, 0)), constant_values=mask_id).reshape(tokens.shape)


def generate(
    decoder: "ImageTokenDecoder", params: Any, prompt: Any, keys: Key[jax.Array, " I"]
) -> Int[Array, "I gh gw"]:
    """One image token a step, from what the model makes of the prompt and of the image tokens before it, which it
    remembers."""
    s, num_tokens = decoder.settings, math.prod(decoder.grid)
    start = jnp.full(len(keys), decoder.codebook_size, jnp.int32)
    cache = decoder.model.empty_image_token_cache(len(decoder.twice(start)), 1, num_tokens)

    def step(carried: tuple[Any, Int[Array, " I"]], number: Int[Array, ""]) -> tuple[Any, Int[Array, " I"]]:
        cache, last = carried
        logits, cache = decoder.model.apply(
            params, prompt, cache, decoder.twice(last[:, None]), decoder.grid, method="next_image_token_logits"
        )
        logits = decoder.guided(logits[:, 0])[:, 0] / s.temperature
        step_keys = jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
        sampled = jax.vmap(jax.random.categorical)(step_keys, logits)
        return (cache, sampled), sampled

    _, sampled = jax.lax.scan(step, (cache, start), jnp.arange(num_tokens))
    return sampled.T.reshape(-1, *decoder.grid)


def logits(
    decoder: "ImageTokenDecoder", params: Any, prompt: Any, tokens: Int[Array, "I gh gw"]
) -> Float[Array, "I G V"]:
    """Those of each cell of a whole image, given the prompt and the image tokens before it, in one pass."""
    shown = shift_right(tokens, mask_id=decoder.codebook_size).reshape(len(tokens), -1)
    cache = decoder.model.empty_image_token_cache(*shown.shape[:1], 1, shown.shape[1])
    token_logits, _ = decoder.model.apply(params, prompt, cache, shown, decoder.grid, method="next_image_token_logits")
    return token_logits[:, 0]
