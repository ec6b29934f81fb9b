"""Images as image tokens, from prompts: one way or the other, compiled whole."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from vlm_jax.config.image_generation import Autoregressive, Masked
from vlm_jax.decoding import autoregressive as autoregressive_way
from vlm_jax.decoding import masked
from vlm_jax.trees import Array


def token_log_probabilities(logits: Float[Array, "I G V"], tokens: Int[Array, "I gh gw"]) -> Float[Array, "I G"]:
    """Of each cell's image token, in nats."""
    flat = tokens.reshape(len(tokens), -1, 1)
    return jnp.take_along_axis(jax.nn.log_softmax(logits), flat, axis=-1)[..., 0]


class ImageTokenDecoder:
    """Compiled drawing with one model and one set of settings.

    Of the model (`VisualLanguageModel`) `prefill_prompt` is used, once an image, and `prefilled_token_logits` or, one
    token after the other, `empty_image_token_cache` and `next_image_token_logits`. `grid` is rows and columns of an
    image's tokens, `codebook_size` how many token ids there are, `empty` the ids and mask [T] of the empty text, which
    stands for no prompt.
    """

    def __init__(
        self,
        model: Any,
        settings: Masked | Autoregressive,
        *,
        grid: tuple[int, int],
        codebook_size: int,
        empty: tuple[Int[Array, " T"], Bool[Array, " T"]],
        num_candidates: int = 1,
    ) -> None:
        self.model, self.settings, self.grid, self.codebook_size, self.empty = (
            model,
            settings,
            grid,
            codebook_size,
            empty,
        )
        self.num_candidates = num_candidates
        self._way = autoregressive_way if isinstance(settings, Autoregressive) else masked
        self._generate = jax.jit(self._best)

    def __call__(
        self, params: Any, ids: Int[Array, "I T"], mask: Bool[Array, "I T"], keys: Key[jax.Array, " I"]
    ) -> Int[Array, "I gh gw"]:
        """The image tokens of an image for each prompt; its key, and nothing else of the batch, decides what is
        drawn."""
        return self._generate(params, ids, mask, keys)

    def _best(
        self, params: Any, ids: Int[Array, "I T"], mask: Bool[Array, "I T"], keys: Key[jax.Array, " I"]
    ) -> Int[Array, "I gh gw"]:
        """Of several candidates the likeliest, given the prompt and without guidance.

        Image tokens that were drawn at the same time need not fit together, and a whole image shows whether they do.
        (Ramesh et al. 2021, section 2.6, let a second model choose among samples; here the one that drew them does.)
        """
        count, prompt = self.num_candidates, self._read(params, ids, mask)
        if count == 1:
            return self._generate_tokens(params, prompt, keys)
        prompt = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), prompt)
        keys = jax.vmap(lambda key: jax.random.split(key, count))(keys).reshape(-1)
        tokens = self._generate_tokens(params, prompt, keys)
        conditional = jax.tree.map(lambda x: x[: len(tokens)], prompt)  # without the empty ones
        log_p = token_log_probabilities(self._way.logits(self, params, conditional, tokens), tokens)
        best = jnp.argmax(jnp.sum(log_p, axis=-1).reshape(-1, count), axis=1)[:, None, None, None]
        return jnp.take_along_axis(tokens.reshape(-1, count, *self.grid), best, axis=1)[:, 0]

    def _generate_tokens(self, params: Any, prompt: Any, keys: Key[jax.Array, " I"]) -> Int[Array, "I gh gw"]:
        tokens = self._way.generate(self, params, prompt, keys)
        refines = isinstance(self.settings, Masked) and self.settings.num_refinement_rounds
        return masked.refine(self, params, prompt, keys, tokens) if refines else tokens

    def _read(self, params: Any, ids: Int[Array, "I T"], mask: Bool[Array, "I T"]) -> Any:
        """The prompts as the model remembers them; with guidance there follow as many empty ones."""
        if self.settings.guidance_scale > 1:
            nothing = [jnp.broadcast_to(row[None], ids.shape) for row in self.empty]
            ids, mask = jnp.concatenate([ids, nothing[0]]), jnp.concatenate([mask, nothing[1]])
        return self.model.apply(params, ids[:, None], mask[:, None], method="prefill_prompt")

    def twice(self, x: Int[Array, "I *s"]) -> Int[Array, "J *s"]:
        """One for each prompt that was read: with guidance the same again."""
        return jnp.concatenate([x, x]) if self.settings.guidance_scale > 1 else x

    def guided(self, logits: Float[Array, "J n V"]) -> Float[Array, "I n V"]:
        """Unconditional logits plus `guidance_scale` times the difference of conditional and unconditional ones.

        The scale is 1 + w of Ho and Salimans 2022, eq. 6.
        """
        if self.settings.guidance_scale == 1:
            return logits
        conditional, unconditional = jnp.split(logits, 2)
        return conditional + (self.settings.guidance_scale - 1) * (conditional - unconditional)
