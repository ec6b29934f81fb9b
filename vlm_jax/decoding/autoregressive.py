"""Codes of pictures one after the other, in reading order: the autoregressive row beside masked decoding."""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from vlm_jax.types import Array

if TYPE_CHECKING:
    from vlm_jax.decoding.codes import CodeDecoder


def before(codes: Int[Array, "I gh gw"], *, mask_code: int) -> Int[Array, "I gh gw"]:
    """What each cell is asked for by: the code before it in reading order, and a hidden one before the first."""
    flat = codes.reshape(len(codes), -1)
    return jnp.pad(flat[:, :-1], ((0, 0), (1, 0)), constant_values=mask_code).reshape(codes.shape)


def draw(decoder: "CodeDecoder", params: Any, prompt: Any, keys: Key[jax.Array, " I"]) -> Int[Array, "I gh gw"]:
    """One code a step, from what the model makes of the prompt and of the codes before it, which it remembers."""
    s, cells = decoder.settings, math.prod(decoder.grid)
    start = jnp.full(len(keys), decoder.codes, jnp.int32)
    room = decoder.model.no_cells(len(decoder.twice(start)), 1, cells)

    def step(carried: tuple[Any, Int[Array, " I"]], number: Int[Array, ""]) -> tuple[Any, Int[Array, " I"]]:
        memory, last = carried
        logits, memory = decoder.model.apply(
            params, prompt, memory, decoder.twice(last[:, None]), decoder.grid, method="next_code_logits"
        )
        logits = decoder.guided(logits[:, 0])[:, 0] / s.temperature
        step_keys = jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
        drawn = jax.vmap(jax.random.categorical)(step_keys, logits)
        return (memory, drawn), drawn

    _, drawn = jax.lax.scan(step, (room, start), jnp.arange(cells))
    return drawn.T.reshape(-1, *decoder.grid)


def logits(decoder: "CodeDecoder", params: Any, prompt: Any, codes: Int[Array, "I gh gw"]) -> Float[Array, "I G V"]:
    """Those of each cell of a whole picture, given the prompt and the codes before it, in one pass."""
    shown = before(codes, mask_code=decoder.codes).reshape(len(codes), -1)
    room = decoder.model.no_cells(*shown.shape[:1], 1, shown.shape[1])
    found, _ = decoder.model.apply(params, prompt, room, shown, decoder.grid, method="next_code_logits")
    return found[:, 0]
