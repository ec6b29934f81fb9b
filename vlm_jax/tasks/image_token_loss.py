"""The loss of image tokens, and the weight of each by how rare it is."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Key

from vlm_jax.config.image_generation import Autoregressive, Masked
from vlm_jax.decoding import mask_tokens, shift_right
from vlm_jax.trees import Array

LEAST_COUNT = 10  # the weight of a token with fewer training images is that of this many


def token_losses(
    logits: Float[Array, "*s V"],
    tokens: Int[Array, "*s"],
    *,
    weights: Float[np.ndarray, " V"] | None,
    smoothing: float,
) -> tuple[Float[Array, "*s"], Bool[Array, "*s"]]:
    """Cross-entropy of each image token, times its weight, and whether it was held for the likeliest.

    Where image tokens have weights w, the cross-entropy is that of softmax(logits + log w), times w. Over image tokens
    of probability p its mean is least where softmax(logits + log w) is p w, rescaled: where softmax(logits) is p,
    whatever the weights. (Menon et al. 2021, arXiv:2007.07314, pair weights and logits so for a balanced error; here
    what is learned stays p.)
    """
    right = jnp.argmax(logits, axis=-1) == tokens
    if weights is not None:
        logits = logits + jnp.log(weights).reshape(*[1] * tokens.ndim, -1)
    log_p = jax.nn.log_softmax(logits)
    loss = -jnp.take_along_axis(log_p, tokens[..., None], axis=-1)[..., 0]
    if smoothing:
        loss = (1 - smoothing) * loss - smoothing * jnp.mean(log_p, axis=-1)
    return loss if weights is None else loss * jnp.asarray(weights)[tokens], right


def token_weights(tokens: Int[np.ndarray, " N"], codebook_size: int, power: float) -> Float[np.ndarray, " V"]:
    """The weight of each image token, its frequency in `tokens` to the power -`power`; 1 on average over `tokens`."""
    counts = np.bincount(tokens, minlength=codebook_size)
    weights = (np.maximum(counts, LEAST_COUNT) / counts.sum()) ** -power
    return (weights / np.average(weights, weights=counts)).astype(np.float32)


def masked_inputs(
    tokens: Int[Array, "I gh gw"], keys: Key[jax.Array, " I"], settings: Masked | Autoregressive, *, mask_id: int
) -> tuple[Int[Array, "I gh gw"], Float[Array, "I 1 N"]]:
    """The input of a train step, and how much each of the N image tokens counts in the loss."""
    if isinstance(settings, Autoregressive):
        return shift_right(tokens, mask_id=mask_id), jnp.ones((len(tokens), 1, tokens[0].size), jnp.float32)
    inputs, is_masked = mask_tokens(tokens, keys, schedule=settings.mask_schedule, mask_id=mask_id)
    counted = is_masked.reshape(len(tokens), 1, -1).astype(jnp.float32)
    if settings.loss_weighting == "elbo":
        # The weight 1 / t of masked diffusion (Sahoo et al. 2024, arXiv:2406.07524, section 3).
        counted = counted / jnp.mean(counted, axis=-1, keepdims=True)
    return inputs, counted
