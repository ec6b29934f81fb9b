"""Pictures as codes, many at a time: masked parallel decoding (MaskGIT), compiled whole."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from vlm_jax.config import Generation
from vlm_jax.types import Array

# The share of codes that is hidden after a part t of the way, 1 at its beginning and 0 at its end (Chang et al. 2022,
# MaskGIT, section 3.3).
MASKING = {
    "cosine": lambda t: jnp.cos(math.pi / 2 * t),
    "linear": lambda t: 1 - t,
    "square": lambda t: 1 - jnp.square(t),
}


def hide(
    codes: Int[Array, "I gh gw"], keys: Key[jax.Array, " I"], *, schedule: str, mask_code: int
) -> tuple[Int[Array, "I gh gw"], Bool[Array, "I gh gw"]]:
    """Codes with a random share hidden, at least one of each picture, and which they are."""

    def of_picture(key: Key[jax.Array, ""]) -> Bool[Array, " G"]:
        part, places = jax.random.split(key)
        cells = codes[0].size
        count = jnp.ceil(MASKING[schedule](jax.random.uniform(part)) * cells)
        return jnp.argsort(jnp.argsort(jax.random.uniform(places, (cells,)))) < jnp.maximum(count, 1)

    hidden = jax.vmap(of_picture)(keys).reshape(codes.shape)
    return jnp.where(hidden, mask_code, codes), hidden


class MaskedDecoder:
    """Compiled drawing with one model and one set of settings.

    Of the model nothing is used but `code_logits` (`VisualLanguageModel`). `grid` is rows and columns of a picture's
    codes, `codes` how many codes there are, `empty` the ids and mask [T] of the empty text, which stands for no prompt.
    """

    def __init__(
        self,
        model: Any,
        settings: Generation,
        *,
        grid: tuple[int, int],
        codes: int,
        empty: tuple[Int[Array, " T"], Bool[Array, " T"]],
    ) -> None:
        self.model, self.settings, self.grid, self.codes, self.empty = model, settings, grid, codes, empty
        self._draw = jax.jit(partial(_draw, self))

    def __call__(
        self, params: Any, ids: Int[Array, "I T"], mask: Bool[Array, "I T"], keys: Key[jax.Array, " I"]
    ) -> Int[Array, "I gh gw"]:
        """The codes of a picture for each prompt; its key, and nothing else of the batch, decides what is drawn."""
        return self._draw(params, ids, mask, keys)

    def logits(
        self, params: Any, codes: Int[Array, "I gh gw"], ids: Array, mask: Array, guidance: float | Float[Array, ""]
    ) -> Float[Array, "I G V"]:
        """Of every cell the logits of its code, guided by w: (1 + w) given - w free (Ho and Salimans 2022, eq. 6)."""
        guided = self.settings.guidance > 0
        if guided:
            nothing = [jnp.broadcast_to(row[None], ids.shape) for row in self.empty]
            ids, mask = jnp.concatenate([ids, nothing[0]]), jnp.concatenate([mask, nothing[1]])
            codes = jnp.concatenate([codes, codes])
        logits = self.model.apply(params, codes, ids[:, None], mask[:, None], method="code_logits")[:, 0]
        if not guided:
            return logits
        given, free = jnp.split(logits, 2)
        return given + guidance * (given - free)


def _draw(
    decoder: MaskedDecoder, params: Any, ids: Int[Array, "I T"], mask: Bool[Array, "I T"], keys: Key[jax.Array, " I"]
) -> Int[Array, "I gh gw"]:
    """All codes are hidden at first. Each step draws every hidden one, and keeps those drawn with most confidence.

    Confidence is the log-probability of what was drawn, with Gumbel noise that falls to zero at the last step.
    """
    s, cells = decoder.settings, math.prod(decoder.grid)

    def step(number: Int[Array, ""], codes: Int[Array, "I G"]) -> Int[Array, "I G"]:
        part = (number + 1) / s.steps
        guidance = s.guidance * (part if s.guidance_schedule == "rising" else 1.0)
        logits = decoder.logits(params, codes.reshape(-1, *decoder.grid), ids, mask, guidance)
        logits = jax.nn.log_softmax(logits / s.temperature)
        step_keys = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, number)))(keys)
        drawn = jax.vmap(jax.random.categorical)(step_keys[:, 0], logits)
        chance = jax.vmap(lambda key: jax.random.gumbel(key, (cells,)))(step_keys[:, 1])
        sure = (
            jnp.take_along_axis(logits, drawn[..., None], axis=-1)[..., 0] + s.choice_temperature * (1 - part) * chance
        )
        hidden = codes == decoder.codes
        sure = jnp.where(hidden, sure, jnp.inf)
        still = jnp.floor(MASKING[s.masking](part) * cells + 1e-4)
        again = jnp.argsort(jnp.argsort(sure)) < still
        return jnp.where(hidden, jnp.where(again, decoder.codes, drawn), codes)

    start = jnp.full((len(ids), cells), decoder.codes, jnp.int32)
    return jax.lax.fori_loop(0, s.steps, step, start).reshape(-1, *decoder.grid)
