"""A vector for each image token: the input of the trunk, and the rows that logits are products with."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

from vlm_jax.config.quantizers import FSQ, Quantizer
from vlm_jax.models.ids import check_ids
from vlm_jax.models.image_tokenizer import fsq_digits
from vlm_jax.types import Parameters

APPEARANCE_SHARE = 0.6  # of a fresh vector's variance; more than half by choice, no other share was tried


class ImageTokenVectors(nn.Module):
    """A table of the image tokens and, with `mask_token`, of the mask token as the last row.

    An image token of the scalar quantizer is a few digits, one for each number, and image tokens that differ in one of
    them look alike. So an image token's vector is the sum of its own and of one for each digit. What is
    learned of an image token is learned of those like it. (Yu et al. 2023, arXiv:2310.05737, section 3.2, factorize
    tokens so.)
    """

    quantizer: Quantizer
    width: int
    std: float
    """Of the initial vectors."""
    mask_token: bool = False

    def setup(self) -> None:
        levels = self.quantizer.levels if isinstance(self.quantizer, FSQ) else ()
        self._digits = fsq_digits(levels) if levels else None
        init = nn.initializers.normal(self.std / (1 + len(levels)) ** 0.5)
        self.embedding = self.param("embedding", init, (self.quantizer.codebook_size + self.mask_token, self.width))
        self.digits = [nn.Embed(count, self.width, embedding_init=init) for count in levels]

    def table(self) -> Float[Array, "V D"]:
        """All vectors, one a row."""
        shared = jnp.zeros((self.quantizer.codebook_size, self.width))
        for place, digit in enumerate(self.digits):
            shared += digit(self._digits[:, place])
        return self.embedding + jnp.pad(shared, ((0, int(self.mask_token)), (0, 0)))

    def embed(self, tokens: Int[Array, "*n"]) -> Float[Array, "*n D"]:
        """The vectors of image tokens."""
        check_ids(tokens, len(self.embedding), "image tokens")
        return self.table()[tokens]

    def scores(self, x: Float[Array, "*n D"]) -> Float[Array, "*n V"]:
        """Products with all vectors."""
        # Contracted as it lies, as BERT's word table.
        return jnp.einsum("...d,vd->...v", x, self.table().astype(x.dtype))


def start_alike(vectors: Parameters, appearance: Float[Array, "V F"], *, key: Key[Array, ""]) -> Parameters:
    """Fresh parameters of `ImageTokenVectors` where image tokens that look alike start with like vectors, as large as
    before.

    `appearance` (of mean 0 and deviation 1) goes through a random matrix. What a word does to one red image token it
    then does to all of them from the first step on, and need not be learned of each.
    """
    own, count, share = vectors["embedding"], len(appearance), APPEARANCE_SHARE
    std = (
        jnp.std(own[:count]) * len(vectors) ** 0.5
    )  # of the sum: an image token's own vector and its digits' are alike
    matrix = jax.random.normal(key, (appearance.shape[1], own.shape[1])) / appearance.shape[1] ** 0.5
    rest = {name: jax.tree.map(lambda x: x * (1 - share) ** 0.5, vectors[name]) for name in vectors}
    tokens = rest["embedding"][:count] + std * share**0.5 * appearance @ matrix
    return rest | {"embedding": own.at[:count].set(tokens)}
