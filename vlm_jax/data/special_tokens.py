"""The five special tokens of a tokenizer, as each family names them: padding, unknown, first, last and mask."""

import json
from typing import TYPE_CHECKING

from vlm_jax.types import Json

if TYPE_CHECKING:
    import tokenizers

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA_TOKENS = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
MPNET_TOKENS = ("<pad>", "[UNK]", "<s>", "</s>", "<mask>")
ALBERT_TOKENS = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
CLIP_TOKENS = ("<|endoftext|>", "<|endoftext|>", "<|startoftext|>", "<|endoftext|>", "")  # it has no mask
_KNOWN = (SPECIAL_TOKENS, ROBERTA_TOKENS, MPNET_TOKENS, ALBERT_TOKENS, CLIP_TOKENS)


def special_names(tokenizer: "tokenizers.Tokenizer") -> tuple[str, ...]:
    """Of the names that the vocabulary has, those that the tokenizer frames a text with; BERT's where none are there.

    A vocabulary may have several: MPNet's begins with its own and goes on with all of BERT's.
    """
    present = [names for names in _KNOWN if all(tokenizer.token_to_id(names[role]) is not None for role in (0, 2, 3))]
    if not present:
        return SPECIAL_TOKENS if tokenizer.token_to_id(ROBERTA_TOKENS[2]) is None else ROBERTA_TOKENS
    if len(present) == 1:
        return present[0]
    frame, unknown = _frame(tokenizer), getattr(tokenizer.model, "unk_token", None)
    return max(present, key=lambda names: (names[2:4] == frame, names[1] == unknown))


def _frame(tokenizer: "tokenizers.Tokenizer") -> tuple[str, ...]:
    """The first and the last token that the tokenizer itself puts around a text."""
    processor: Json = json.loads(tokenizer.post_processor.__getstate__()) if tokenizer.post_processor else {}
    if "single" in processor:
        return tuple(piece["SpecialToken"]["id"] for piece in processor["single"] if "SpecialToken" in piece)
    return tuple(processor[name][0] for name in ("cls", "sep") if name in processor)
