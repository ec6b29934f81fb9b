"""Image tokens of images, many at a time: masked parallel decoding (MaskGIT)."""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from vlm_jax.trees import Array

if TYPE_CHECKING:
    from vlm_jax.decoding.image_tokens import ImageTokenDecoder

# The share of image tokens that is hidden after a part t of the way, 1 at its beginning and 0 at its end (Chang et al.
# 2022,
# MaskGIT, section 3.3).
MASK_SCHEDULES = {
    "cosine": lambda t: jnp.cos(math.pi / 2 * t),
    "linear": lambda t: 1 - t,
    "square": lambda t: 1 - jnp.square(t),
}

PARTS = 4  # of an image, each judged by what the rest of it says
REFINEMENT_PARTS = 8  # parts of an image, each drawn anew by what the rest of it says
SHARE_OF_BLOCKS = 0.5  # of training images, whose masked image tokens lie together
REFINEMENT_TEMPERATURE = 0.5
MOST_HOLES = 3  # as many things as images of two or three have, and a gap


def mask_tokens(
    tokens: Int[Array, "I gh gw"], keys: Key[jax.Array, " I"], *, schedule: str, mask_id: int
) -> tuple[Int[Array, "I gh gw"], Bool[Array, "I gh gw"]]:
    """Image tokens with a random share hidden, at least one of each image, and which they are.

    Those hidden are anywhere or, in a share `SHARE_OF_BLOCKS` of the images, the ones nearest to one, two or three
    random places: there things are gone whole and what surrounds them is known, so that only the prompt tells what they
    were (as images are masked by Bao et al. 2021, BEiT, section 2.3, though by rectangles). A cell in the
    middle is near to more places than one in a corner, and hidden more often.
    """
    shape = tokens.shape[1:]
    positions = jnp.stack(jnp.meshgrid(*map(jnp.arange, shape), indexing="ij"), axis=-1)

    def mask_image(key: Key[jax.Array, ""]) -> Bool[Array, "gh gw"]:
        part, places, block, centre, holes = jax.random.split(key, 5)
        count = jnp.ceil(MASK_SCHEDULES[schedule](jax.random.uniform(part)) * math.prod(shape))
        middles = jax.random.uniform(centre, (MOST_HOLES, 2)) * jnp.array(shape)[None] - 0.5
        apart = jnp.sum(jnp.square(positions[:, :, None] - middles[None, None]), axis=-1)
        there = jnp.arange(MOST_HOLES) < jax.random.randint(holes, (), 1, MOST_HOLES + 1)
        nearest = jnp.min(jnp.where(there[None, None], apart, jnp.inf), axis=-1)
        order = jnp.where(jax.random.bernoulli(block, SHARE_OF_BLOCKS), nearest, jax.random.uniform(places, shape))
        return (jnp.argsort(jnp.argsort(order.ravel())) < jnp.maximum(count, 1)).reshape(shape)

    is_masked = jax.vmap(mask_image)(keys)
    return jnp.where(is_masked, mask_id, tokens), is_masked


def generate(
    decoder: "ImageTokenDecoder", params: Any, prompt: Any, keys: Key[jax.Array, " I"]
) -> Int[Array, "I gh gw"]:
    """All image tokens are hidden at first. Each step draws every hidden one, and keeps those drawn with most
    confidence.

    Confidence is the log-probability of what was drawn, with Gumbel noise that falls to zero at the last step.
    """
    s, num_tokens = decoder.settings, math.prod(decoder.grid)

    def step(number: Int[Array, ""], tokens: Int[Array, "I G"]) -> Int[Array, "I G"]:
        part = (number + 1) / s.num_decoding_steps
        grids = decoder.twice(tokens.reshape(-1, *decoder.grid))
        logits = decoder.model.apply(params, prompt, grids, method="prefilled_token_logits")[:, 0]
        logits = decoder.guided(logits)
        logits = jax.nn.log_softmax(logits / s.temperature)
        step_keys = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, number)))(keys)
        sampled = jax.vmap(jax.random.categorical)(step_keys[:, 0], logits)
        noise = jax.vmap(lambda key: jax.random.gumbel(key, (num_tokens,)))(step_keys[:, 1])
        confidence = (
            jnp.take_along_axis(logits, sampled[..., None], axis=-1)[..., 0] + s.choice_temperature * (1 - part) * noise
        )
        is_masked = tokens == decoder.codebook_size
        confidence = jnp.where(is_masked, confidence, jnp.inf)
        num_masked = jnp.floor(MASK_SCHEDULES[s.mask_schedule](part) * num_tokens + 1e-4)
        remasked = jnp.argsort(jnp.argsort(confidence)) < num_masked
        return jnp.where(is_masked, jnp.where(remasked, decoder.codebook_size, sampled), tokens)

    start = jnp.full((len(keys), num_tokens), decoder.codebook_size, jnp.int32)
    return jax.lax.fori_loop(0, s.num_decoding_steps, step, start).reshape(-1, *decoder.grid)


def refine(
    decoder: "ImageTokenDecoder", params: Any, prompt: Any, keys: Key[jax.Array, " I"], tokens: Int[Array, "I gh gw"]
) -> Int[Array, "I gh gw"]:
    """Whole images with every image token drawn anew, a random eighth at a time, given the rest; several rounds of it.

    Image tokens that were drawn first knew of few others. (One at a time this would be Gibbs sampling, Geman and Geman
    1984; a round of eighths costs as much as eight steps.) Colder than the first draw, it leads to likelier images.
    """
    s, num_tokens = decoder.settings, math.prod(decoder.grid)

    def again(number: Int[Array, ""], tokens: Int[Array, "I gh gw"]) -> Int[Array, "I gh gw"]:
        turn, part = jnp.divmod(number, REFINEMENT_PARTS)

        def chosen(key: Key[jax.Array, ""]) -> Bool[Array, "gh gw"]:
            return (
                jax.random.permutation(jax.random.fold_in(key, turn), num_tokens) % REFINEMENT_PARTS == part
            ).reshape(decoder.grid)

        fresh = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, s.num_decoding_steps)))(
            keys
        )  # draw took those before
        is_masked = jax.vmap(chosen)(fresh[:, 0])
        shown = decoder.twice(jnp.where(is_masked, decoder.codebook_size, tokens))
        logits = decoder.guided(decoder.model.apply(params, prompt, shown, method="prefilled_token_logits")[:, 0])
        step_keys = jax.vmap(lambda key: jax.random.fold_in(key, number))(fresh[:, 1])
        sampled = jax.vmap(jax.random.categorical)(step_keys, logits / REFINEMENT_TEMPERATURE)
        return jnp.where(is_masked, sampled.reshape(tokens.shape), tokens)

    return jax.lax.fori_loop(0, s.num_refinement_rounds * REFINEMENT_PARTS, again, tokens)


def logits(
    decoder: "ImageTokenDecoder", params: Any, prompt: Any, tokens: Int[Array, "I gh gw"]
) -> Float[Array, "I G V"]:
    """Those of each cell, given the prompt and the rest of a whole image.

    What they give its image tokens is a pseudo-likelihood (Salazar et al. 2020, Masked language model scoring, section
    2), but for a quarter of the image tokens is hidden at a time, not one: as many passes as there are parts, and no
    two hidden cells touch.
    """
    row, column = jnp.indices(decoder.grid)
    part_of = (2 * row + column) % PARTS

    def part_logits(part: Int[Array, ""]) -> Float[Array, "I G V"]:
        shown = jnp.where((part_of == part)[None], decoder.codebook_size, tokens)
        return decoder.model.apply(params, prompt, shown, method="prefilled_token_logits")[:, 0]

    # One part after the other: all at once would take four times the memory.
    return jax.lax.fori_loop(
        1,
        PARTS,
        lambda part, so_far: jnp.where((part_of == part).reshape(1, -1, 1), part_logits(part), so_far),
        part_logits(jnp.int32(0)),
    )
