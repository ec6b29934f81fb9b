"""A vector for each code of an image tokenizer: for where cells start, and for what their logits are products with."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

from vlm_jax.config import ImageTokenizerSettings
from vlm_jax.models.ids import check_ids
from vlm_jax.models.image_tokenizer import code_count, code_digits

SHARE_OF_LOOKS = 0.6  # of a fresh vector's variance; more than half by choice, no other share was tried


class CodeVectors(nn.Module):
    """A table of the codes and, where one is `hidden`, of that one as well, as the last.

    A code of the scalar quantizer is a few digits, one for each number, and codes that differ in one of them look
    alike. So a code's vector is the sum of its own and of one for each digit, so that what is learned
    of a code is learned of those like it (as tokens are taken apart by Yu et al. 2023, arXiv:2310.05737, section 3.2).
    """

    settings: ImageTokenizerSettings
    width: int
    deviation: float
    """Of the initial vectors."""
    hidden: bool = False

    def setup(self) -> None:
        s = self.settings
        self._digits = code_digits(s) if s.quantizer == "fsq" else None
        levels = s.levels if self._digits is not None else ()
        init = nn.initializers.normal(self.deviation / (1 + len(levels)) ** 0.5)
        self.embedding = self.param("embedding", init, (code_count(s) + self.hidden, self.width))
        self.digits = [nn.Embed(count, self.width, embedding_init=init) for count in levels]

    def table(self) -> Float[Array, "V D"]:
        """All vectors, one a row."""
        shared = jnp.zeros((code_count(self.settings), self.width))
        for place, digit in enumerate(self.digits):
            shared += digit(self._digits[:, place])
        return self.embedding + jnp.pad(shared, ((0, int(self.hidden)), (0, 0)))

    def look_up(self, codes: Int[Array, "*n"]) -> Float[Array, "*n D"]:
        """The vectors of codes."""
        check_ids(codes, len(self.embedding), "image code")
        return self.table()[codes]

    def scores(self, x: Float[Array, "*n D"]) -> Float[Array, "*n V"]:
        """Products with all vectors."""
        # Contracted as it lies, as BERT's word table.
        return jnp.einsum("...d,vd->...v", x, self.table().astype(x.dtype))


def starting_alike(vectors: dict[str, Any], looks: Float[Array, "V F"], *, key: Key[Array, ""]) -> dict[str, Any]:
    """Fresh parameters of `CodeVectors` where codes that look alike start with like vectors, as large as before.

    `looks` (of mean 0 and deviation 1) goes through a random matrix. What a word does to one red code it then does to
    all of them from the first step on, and need not be learned of each.
    """
    own, count, share = vectors["embedding"], len(looks), SHARE_OF_LOOKS
    deviation = jnp.std(own[:count]) * len(vectors) ** 0.5  # of the sum: a code's own vector and its digits' are alike
    matrix = jax.random.normal(key, (looks.shape[1], own.shape[1])) / looks.shape[1] ** 0.5
    rest = {name: jax.tree.map(lambda x: x * (1 - share) ** 0.5, vectors[name]) for name in vectors}
    codes = rest["embedding"][:count] + deviation * share**0.5 * looks @ matrix
    return rest | {"embedding": own.at[:count].set(codes)}
