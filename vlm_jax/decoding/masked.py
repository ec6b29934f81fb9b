"""Image tokens of images, many at a time: masked parallel decoding (MaskGIT)."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from vlm_jax.config.image_generation import Masked
from vlm_jax.decoding.protocol import ImageTokenModel
from vlm_jax.trees import Array

# The share of image tokens that is masked after a part t of the steps, 1 at the first and 0 after the last (Chang et
# al. 2022, MaskGIT, section 3.3).
MASK_SCHEDULES = {
    "cosine": lambda t: jnp.cos(math.pi / 2 * t),
    "linear": lambda t: 1 - t,
    "square": lambda t: 1 - jnp.square(t),
}

PARTS = 4  # of an image, each scored given the rest of it
REFINEMENT_PARTS = 8  # of an image, each sampled again given the rest of it
SHARE_OF_BLOCKS = 0.5  # of training images, whose masked image tokens lie together
REFINEMENT_TEMPERATURE = 0.5
MOST_HOLES = 3  # as many as an image of two or three objects has objects and gaps


def mask_tokens(
    tokens: Int[Array, "I gh gw"], keys: Key[jax.Array, " I"], *, schedule: str, mask_id: int
) -> tuple[Int[Array, "I gh gw"], Bool[Array, "I gh gw"]]:
    """Image tokens with a random share masked, at least one of each image, and which they are.

    The masked ones are anywhere. In a share `SHARE_OF_BLOCKS` of the images they are the nearest to one, two or three
    random positions: an object is masked whole and its surroundings are known, so that only the prompt tells what it
    was (as Bao et al. 2021, BEiT, section 2.3, mask images, though by rectangles). A position in the middle is near to
    more of them than one in a corner, and masked more often.
    """
    shape = tokens.shape[1:]
    positions = jnp.stack(jnp.meshgrid(*map(jnp.arange, shape), indexing="ij"), axis=-1)

    def mask_image(key: Key[jax.Array, ""]) -> Bool[Array, "gh gw"]:
        part, places, block, centre, holes = jax.random.split(key, 5)
        count = jnp.ceil(MASK_SCHEDULES[schedule](jax.random.uniform(part)) * math.prod(shape))
        middles = jax.random.uniform(centre, (MOST_HOLES, 2)) * jnp.array(shape)[None] - 0.5
        distance = jnp.sum(jnp.square(positions[:, :, None] - middles[None, None]), axis=-1)
        is_hole = jnp.arange(MOST_HOLES) < jax.random.randint(holes, (), 1, MOST_HOLES + 1)
        nearest = jnp.min(jnp.where(is_hole[None, None], distance, jnp.inf), axis=-1)
        order = jnp.where(jax.random.bernoulli(block, SHARE_OF_BLOCKS), nearest, jax.random.uniform(places, shape))
        return (jnp.argsort(jnp.argsort(order.ravel())) < jnp.maximum(count, 1)).reshape(shape)

    is_masked = jax.vmap(mask_image)(keys)
    return jnp.where(is_masked, mask_id, tokens), is_masked


def decode_masked(model: ImageTokenModel, settings: Masked, keys: Key[jax.Array, " I"]) -> Int[Array, "I gh gw"]:
    """All image tokens are masked at first. Each step samples every masked one, and keeps the most confident ones.

    Confidence is the log-probability of a sampled token, with Gumbel noise that falls to zero at the last step.
    """
    num_tokens, mask_id = math.prod(model.grid), model.mask_id

    def step(number: Int[Array, ""], tokens: Int[Array, "I G"]) -> Int[Array, "I G"]:
        part = (number + 1) / settings.num_decoding_steps
        logits = model.logits(tokens.reshape(-1, *model.grid))
        logits = jax.nn.log_softmax(logits / settings.temperature)
        step_keys = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, number)))(keys)
        sampled = jax.vmap(jax.random.categorical)(step_keys[:, 0], logits)
        noise = jax.vmap(lambda key: jax.random.gumbel(key, (num_tokens,)))(step_keys[:, 1])
        log_p = jnp.take_along_axis(logits, sampled[..., None], axis=-1)[..., 0]
        is_masked = tokens == mask_id
        confidence = jnp.where(is_masked, log_p + settings.choice_temperature * (1 - part) * noise, jnp.inf)
        num_masked = jnp.floor(MASK_SCHEDULES[settings.mask_schedule](part) * num_tokens + 1e-4)
        remasked = jnp.argsort(jnp.argsort(confidence)) < num_masked
        return jnp.where(is_masked, jnp.where(remasked, mask_id, sampled), tokens)

    start = jnp.full((len(keys), num_tokens), mask_id, jnp.int32)
    return jax.lax.fori_loop(0, settings.num_decoding_steps, step, start).reshape(-1, *model.grid)


def refine(
    model: ImageTokenModel, settings: Masked, keys: Key[jax.Array, " I"], tokens: Int[Array, "I gh gw"]
) -> Int[Array, "I gh gw"]:
    """Whole images with every image token sampled again, a random eighth at a time, given the rest; in several rounds.

    Image tokens that were sampled first knew few others. (One at a time this would be Gibbs sampling, Geman and Geman
    1984; a round of eighths costs as much as eight steps.) At a lower temperature it leads to more probable images.
    """
    num_tokens, mask_id = math.prod(model.grid), model.mask_id
    # The steps of `decode_masked` folded smaller numbers into the keys.
    fresh = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, settings.num_decoding_steps)))(keys)

    def resample(number: Int[Array, ""], tokens: Int[Array, "I gh gw"]) -> Int[Array, "I gh gw"]:
        round_number, part = jnp.divmod(number, REFINEMENT_PARTS)

        def part_of_image(key: Key[jax.Array, ""]) -> Bool[Array, "gh gw"]:
            order = jax.random.permutation(jax.random.fold_in(key, round_number), num_tokens)
            return (order % REFINEMENT_PARTS == part).reshape(model.grid)

        is_masked = jax.vmap(part_of_image)(fresh[:, 0])
        logits = model.logits(jnp.where(is_masked, mask_id, tokens))
        step_keys = jax.vmap(lambda key: jax.random.fold_in(key, number))(fresh[:, 1])
        sampled = jax.vmap(jax.random.categorical)(step_keys, logits / REFINEMENT_TEMPERATURE)
        return jnp.where(is_masked, sampled.reshape(tokens.shape), tokens)

    return jax.lax.fori_loop(0, settings.num_refinement_rounds * REFINEMENT_PARTS, resample, tokens)


def pseudo_likelihood_logits(model: ImageTokenModel, tokens: Int[Array, "I gh gw"]) -> Float[Array, "I G V"]:
    """At every grid position of whole images, given the rest of the image.

    The log-probabilities of the image tokens are a pseudo-likelihood (Salazar et al. 2020, Masked language model
    scoring, section 2), but a quarter of the tokens is masked at a time, not one: as many passes as there are parts,
    and no two masked positions touch.
    """
    row, column = jnp.indices(model.grid)
    part_of = (2 * row + column) % PARTS

    def part_logits(part: Int[Array, ""]) -> Float[Array, "I G V"]:
        return model.logits(jnp.where((part_of == part)[None], model.mask_id, tokens))

    # One part after the other: all at once would take four times the memory.
    return jax.lax.fori_loop(
        1,
        PARTS,
        lambda part, logits: jnp.where((part_of == part).reshape(1, -1, 1), part_logits(part), logits),
        part_logits(jnp.int32(0)),
    )
