"""Word vectors of a pretrained text encoder for the tokens of another tokenizer."""

import numpy as np
from jaxtyping import Float

from vlm_jax.data.tokenizer import Tokenizer

PIECE = "##"  # begins a WordPiece token that goes on with a word


def vectors_of_tokens(
    tokenizer: Tokenizer, rows: int, source: Tokenizer, vectors: Float[np.ndarray, "V E"]
) -> tuple[Float[np.ndarray, "{rows} E"], int]:
    """A table of `rows` for `tokenizer`, and how many of its tokens the source has as well.

    Such a token gets its own vector, another one the mean of those of its pieces. Special tokens are matched by their
    role, whatever they are called. Rows of no token are 0: no text reads them.
    """
    roles = _same_roles(tokenizer, source)
    table, shared = np.zeros((rows, vectors.shape[1]), np.float32), 0
    for row in sorted(set(range(tokenizer.vocab_size)).difference(tokenizer.unused(tokenizer.vocab_size))):
        token = tokenizer.token(row)
        own = roles.get(row, source.id_of(token))
        shared += own is not None
        pieces = source.tokens([token.removeprefix(PIECE)])[0] if own is None else [own]
        if pieces:
            table[row] = vectors[pieces].mean(axis=0)
    return table, shared


def _same_roles(tokenizer: Tokenizer, source: Tokenizer) -> dict[int, int]:
    """The special tokens' ids to those of the source. MPNet's vocabulary holds BERT's [CLS] as an untrained word."""
    pairs = (
        (tokenizer.pad_id, source.pad_id),
        (tokenizer.unknown_id, source.unknown_id),
        (tokenizer.cls_id, source.cls_id),
        (tokenizer.sep_id, source.sep_id),
        (tokenizer.mask_id, source.mask_id),
    )
    return {own: other for own, other in pairs if own is not None and other is not None}
