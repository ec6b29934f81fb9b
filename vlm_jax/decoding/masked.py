"""Codes of pictures, many at a time: masked parallel decoding (MaskGIT)."""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from vlm_jax.types import Array

if TYPE_CHECKING:
    from vlm_jax.decoding.codes import CodeDecoder

# The share of codes that is hidden after a part t of the way, 1 at its beginning and 0 at its end (Chang et al. 2022,
# MaskGIT, section 3.3).
MASK_SCHEDULES = {
    "cosine": lambda t: jnp.cos(math.pi / 2 * t),
    "linear": lambda t: 1 - t,
    "square": lambda t: 1 - jnp.square(t),
}

PARTS = 4  # of a picture, each judged by what the rest of it says
REVISED = 8  # parts of a picture, each drawn anew by what the rest of it says
SHARE_OF_BLOCKS = 0.5  # of training pictures, whose hidden codes lie together
REVISION_TEMPERATURE = 0.5
MOST_HOLES = 3  # as many things as pictures of two or three have, and a gap


def hide(
    codes: Int[Array, "I gh gw"], keys: Key[jax.Array, " I"], *, schedule: str, mask_code: int
) -> tuple[Int[Array, "I gh gw"], Bool[Array, "I gh gw"]]:
    """Codes with a random share hidden, at least one of each picture, and which they are.

    Those hidden are anywhere or, in a share `SHARE_OF_BLOCKS` of the pictures, the ones nearest to one, two or three
    random places: there things are gone whole and what surrounds them is known, so that only the prompt tells what they
    were (as images are masked by Bao et al. 2021, BEiT, section 2.3, though by rectangles). A cell in the
    middle is near to more places than one in a corner, and hidden more often.
    """
    shape = codes.shape[1:]
    cells = jnp.stack(jnp.meshgrid(*map(jnp.arange, shape), indexing="ij"), axis=-1)

    def of_picture(key: Key[jax.Array, ""]) -> Bool[Array, "gh gw"]:
        part, places, block, centre, holes = jax.random.split(key, 5)
        count = jnp.ceil(MASK_SCHEDULES[schedule](jax.random.uniform(part)) * math.prod(shape))
        middles = jax.random.uniform(centre, (MOST_HOLES, 2)) * jnp.array(shape)[None] - 0.5
        apart = jnp.sum(jnp.square(cells[:, :, None] - middles[None, None]), axis=-1)
        there = jnp.arange(MOST_HOLES) < jax.random.randint(holes, (), 1, MOST_HOLES + 1)
        nearest = jnp.min(jnp.where(there[None, None], apart, jnp.inf), axis=-1)
        order = jnp.where(jax.random.bernoulli(block, SHARE_OF_BLOCKS), nearest, jax.random.uniform(places, shape))
        return (jnp.argsort(jnp.argsort(order.ravel())) < jnp.maximum(count, 1)).reshape(shape)

    hidden = jax.vmap(of_picture)(keys)
    return jnp.where(hidden, mask_code, codes), hidden


def draw(decoder: "CodeDecoder", params: Any, prompt: Any, keys: Key[jax.Array, " I"]) -> Int[Array, "I gh gw"]:
    """All codes are hidden at first. Each step draws every hidden one, and keeps those drawn with most confidence.

    Confidence is the log-probability of what was drawn, with Gumbel noise that falls to zero at the last step.
    """
    s, cells = decoder.settings, math.prod(decoder.grid)

    def step(number: Int[Array, ""], codes: Int[Array, "I G"]) -> Int[Array, "I G"]:
        part = (number + 1) / s.num_decoding_steps
        pictures = decoder.twice(codes.reshape(-1, *decoder.grid))
        logits = decoder.model.apply(params, prompt, pictures, method="prompted_code_logits")[:, 0]
        logits = decoder.guided(logits)
        logits = jax.nn.log_softmax(logits / s.temperature)
        step_keys = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, number)))(keys)
        drawn = jax.vmap(jax.random.categorical)(step_keys[:, 0], logits)
        chance = jax.vmap(lambda key: jax.random.gumbel(key, (cells,)))(step_keys[:, 1])
        sure = (
            jnp.take_along_axis(logits, drawn[..., None], axis=-1)[..., 0] + s.choice_temperature * (1 - part) * chance
        )
        hidden = codes == decoder.codes
        sure = jnp.where(hidden, sure, jnp.inf)
        still = jnp.floor(MASK_SCHEDULES[s.mask_schedule](part) * cells + 1e-4)
        again = jnp.argsort(jnp.argsort(sure)) < still
        return jnp.where(hidden, jnp.where(again, decoder.codes, drawn), codes)

    start = jnp.full((len(keys), cells), decoder.codes, jnp.int32)
    return jax.lax.fori_loop(0, s.num_decoding_steps, step, start).reshape(-1, *decoder.grid)


def revise(
    decoder: "CodeDecoder", params: Any, prompt: Any, keys: Key[jax.Array, " I"], codes: Int[Array, "I gh gw"]
) -> Int[Array, "I gh gw"]:
    """Whole pictures with every code drawn anew, a random eighth at a time, given the rest; several rounds of it.

    Codes that were drawn first knew of few others. (One at a time this would be Gibbs sampling, Geman and Geman 1984; a
    round of eighths costs as much as eight steps.) Colder than the first draw, it leads to likelier pictures.
    """
    s, cells = decoder.settings, math.prod(decoder.grid)

    def again(number: Int[Array, ""], codes: Int[Array, "I gh gw"]) -> Int[Array, "I gh gw"]:
        turn, part = jnp.divmod(number, REVISED)

        def chosen(key: Key[jax.Array, ""]) -> Bool[Array, "gh gw"]:
            return (jax.random.permutation(jax.random.fold_in(key, turn), cells) % REVISED == part).reshape(
                decoder.grid
            )

        fresh = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, s.num_decoding_steps)))(
            keys
        )  # draw took those before
        hidden = jax.vmap(chosen)(fresh[:, 0])
        shown = decoder.twice(jnp.where(hidden, decoder.codes, codes))
        logits = decoder.guided(decoder.model.apply(params, prompt, shown, method="prompted_code_logits")[:, 0])
        step_keys = jax.vmap(lambda key: jax.random.fold_in(key, number))(fresh[:, 1])
        drawn = jax.vmap(jax.random.categorical)(step_keys, logits / REVISION_TEMPERATURE)
        return jnp.where(hidden, drawn.reshape(codes.shape), codes)

    return jax.lax.fori_loop(0, s.num_refinement_rounds * REVISED, again, codes)


def logits(decoder: "CodeDecoder", params: Any, prompt: Any, codes: Int[Array, "I gh gw"]) -> Float[Array, "I G V"]:
    """Those of each cell, given the prompt and the rest of a whole picture.

    What they give its codes is a pseudo-likelihood (Salazar et al. 2020, Masked language model scoring, section 2), but
    for a quarter of the codes is hidden at a time, not one: as many passes as there are parts, and no two hidden cells
    touch.
    """
    row, column = jnp.indices(decoder.grid)
    part_of = (2 * row + column) % PARTS

    def judge(part: Int[Array, ""]) -> Float[Array, "I G V"]:
        shown = jnp.where((part_of == part)[None], decoder.codes, codes)
        return decoder.model.apply(params, prompt, shown, method="prompted_code_logits")[:, 0]

    # One part after the other: all at once would take four times the memory.
    return jax.lax.fori_loop(
        1,
        PARTS,
        lambda part, so_far: jnp.where((part_of == part).reshape(1, -1, 1), judge(part), so_far),
        judge(jnp.int32(0)),
    )
