"""Images as image tokens, from prompts: the strategy of the settings, guidance and candidates, compiled whole."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from vlm_jax.config.image_generation import Autoregressive, Masked
from vlm_jax.decoding.autoregressive import decode_autoregressive, likelihood_logits
from vlm_jax.decoding.guidance import Guided
from vlm_jax.decoding.masked import decode_masked, pseudo_likelihood_logits, refine
from vlm_jax.decoding.prefilled import PrefilledPrompts
from vlm_jax.decoding.protocol import ImageTokenModel
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.placement import split_over_devices
from vlm_jax.trees import Array
from vlm_jax.types import Parameters

Generation = Masked | Autoregressive


def token_log_probabilities(logits: Float[Array, "I G V"], tokens: Int[Array, "I gh gw"]) -> Float[Array, "I G"]:
    """Of each image token, in nats."""
    flat = tokens.reshape(len(tokens), -1, 1)
    return jnp.take_along_axis(jax.nn.log_softmax(logits), flat, axis=-1)[..., 0]


def generate(model: ImageTokenModel, settings: Generation, keys: Key[jax.Array, " I"]) -> Int[Array, "I gh gw"]:
    """The image tokens of an image for each prompt; `keys` holds one key an image."""
    if isinstance(settings, Autoregressive):
        return decode_autoregressive(model, settings, keys)
    tokens = decode_masked(model, settings, keys)
    return refine(model, settings, keys, tokens) if settings.num_refinement_rounds else tokens


def most_probable(
    model: ImageTokenModel, settings: Generation, tokens: Int[Array, "N gh gw"], num_candidates: int
) -> Int[Array, "I gh gw"]:
    """Of `num_candidates` candidates an image the one with the largest log-probability.

    Image tokens that were sampled at the same step need not fit together; a whole image shows whether they do. (Ramesh
    et al. 2021, section 2.6, let a second model choose among samples; here the model that sampled them does.)
    """
    logits_of = likelihood_logits if isinstance(settings, Autoregressive) else pseudo_likelihood_logits
    log_p = token_log_probabilities(logits_of(model, tokens), tokens)
    best = jnp.argmax(jnp.sum(log_p, axis=-1).reshape(-1, num_candidates), axis=1)[:, None, None, None]
    return jnp.take_along_axis(tokens.reshape(-1, num_candidates, *tokens.shape[1:]), best, axis=1)[:, 0]


class ImageTokenDecoder:
    """Compiled generation with one model and one set of settings.

    `grid` is rows and columns of an image's tokens, `codebook_size` the number of image tokens, `empty` the ids and
    mask [T] of the empty prompt, which guidance needs. Of `num_candidates` images a prompt the most probable is
    returned.
    """

    def __init__(
        self,
        model: VisualLanguageModel,
        settings: Generation,
        *,
        grid: tuple[int, int],
        codebook_size: int,
        empty: tuple[Int[Array, " T"], Bool[Array, " T"]],
        num_candidates: int = 1,
    ) -> None:
        self.settings, self.empty, self.num_candidates = settings, empty, num_candidates
        self._prefill = partial(PrefilledPrompts.prefill, model, grid=grid, mask_id=codebook_size)
        self._generate = split_over_devices(self._best)

    def __call__(
        self, variables: Parameters, ids: Int[Array, "I T"], mask: Bool[Array, "I T"], keys: Key[jax.Array, " I"]
    ) -> Int[Array, "I gh gw"]:
        """The image tokens of an image for each prompt; they depend on its prompt and key, not on the batch."""
        return self._generate(variables, ids, mask, keys)

    def _best(
        self, variables: Parameters, ids: Int[Array, "I T"], mask: Bool[Array, "I T"], keys: Key[jax.Array, " I"]
    ) -> Int[Array, "I gh gw"]:
        count, scale = self.num_candidates, self.settings.guidance_scale
        if scale > 1:
            ids, mask = (
                jnp.concatenate([prompt, jnp.broadcast_to(row[None], prompt.shape)])
                for prompt, row in zip((ids, mask), self.empty, strict=True)
            )
        prompts = self._prefill(variables, ids, mask)
        if count > 1:
            prompts = prompts.repeat(count)
            keys = jax.vmap(lambda key: jax.random.split(key, count))(keys).reshape(-1)
        tokens = generate(Guided(prompts, scale) if scale > 1 else prompts, self.settings, keys)
        return tokens if count == 1 else most_probable(prompts.first(len(keys)), self.settings, tokens, count)
