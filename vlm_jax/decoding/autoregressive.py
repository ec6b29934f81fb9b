"""Image tokens one after the other, in reading order."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from vlm_jax.config.image_generation import Autoregressive
from vlm_jax.decoding.protocol import Cache, ImageTokenModel
from vlm_jax.trees import Array


def shift_right(tokens: Int[Array, "I gh gw"], *, mask_id: int) -> Int[Array, "I gh gw"]:
    """At each grid position the image token before it in reading order, at the first one the mask token."""
    flat = tokens.reshape(len(tokens), -1)
    return jnp.pad(flat[:, :-1], ((0, 0), (1, 0)), constant_values=mask_id).reshape(tokens.shape)


def decode_autoregressive(
    model: ImageTokenModel, settings: Autoregressive, keys: Key[jax.Array, " I"]
) -> Int[Array, "I gh gw"]:
    """One image token a step, sampled given the prompt and the image tokens before it."""
    num_tokens = math.prod(model.grid)

    def step(carried: tuple[Cache, Int[Array, " I"]], number: Int[Array, ""]) -> tuple[tuple, Int[Array, " I"]]:
        cache, last = carried
        logits, cache = model.decode_step(cache, last[:, None])
        step_keys = jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
        sampled = jax.vmap(jax.random.categorical)(step_keys, logits[:, 0] / settings.temperature)
        return (cache, sampled), sampled

    start = jnp.full(len(keys), model.mask_id, jnp.int32)
    _, sampled = jax.lax.scan(step, (model.empty_cache(), start), jnp.arange(num_tokens))
    return sampled.T.reshape(-1, *model.grid)


def likelihood_logits(model: ImageTokenModel, tokens: Int[Array, "I gh gw"]) -> Float[Array, "I G V"]:
    """At every grid position of whole images, given the image tokens before it; in one pass."""
    previous = shift_right(tokens, mask_id=model.mask_id).reshape(len(tokens), -1)
    return model.decode_step(model.empty_cache(), previous)[0]
