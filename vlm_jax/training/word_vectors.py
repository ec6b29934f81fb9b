"""Word vectors of a pretrained text encoder for the tokens of another tokenizer."""

import numpy as np
from jaxtyping import Float

from vlm_jax.data.tokenizer import Tokenizer

PIECE = "##"  # begins a WordPiece token that goes on with a word


def vectors_of_tokens(
    tokenizer: Tokenizer, rows: int, source: Tokenizer, vectors: Float[np.ndarray, "V E"]
) -> tuple[Float[np.ndarray, "{rows} E"], int]:
    """A table of `rows` for `tokenizer`, and how many of its tokens the source has as well.

    Such a token gets its own vector, another one the mean of those of its pieces. Rows of no token are 0: no text
    reads them.
    """
    table, shared = np.zeros((rows, vectors.shape[1]), np.float32), 0
    for row in sorted(set(range(tokenizer.vocab_size)).difference(tokenizer.unused(tokenizer.vocab_size))):
        token = tokenizer.token(row)
        own = source.id_of(token)
        shared += own is not None
        pieces = source.tokens([token.removeprefix(PIECE)])[0] if own is None else [own]
        if pieces:
            table[row] = vectors[pieces].mean(axis=0)
    return table, shared
