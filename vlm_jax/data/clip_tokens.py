"""CLIP's tokenizer: byte-level BPE of lower-cased words, by the rules of transformers' CLIPTokenizer.

The class takes vocabulary and merges from the files, and builds all else itself (tokenization_clip.py).
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_jax.errors import InputError
from vlm_jax.types import Json

if TYPE_CHECKING:
    import tokenizers

WORD_END = "</w>"
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
RULES: dict[str, Json] = {
    "normalizer": {
        "type": "Sequence",
        "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ],
    },
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": _WORDS}, "behavior": "Removed", "invert": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ],
    },
}
"""Of a tokenizer.json: how a text is normalised and split."""


def is_clip(model: dict[str, Json]) -> bool:
    """Whether the model of a tokenizer.json is CLIP's: a BPE whose words have an end."""
    return model["type"] == "BPE" and model.get("end_of_word_suffix") == WORD_END


def clip_tokenizer(vocabulary: Path, merges: Path) -> "tokenizers.Tokenizer":
    """The tokenizer of vocab.json and merges.txt."""
    from tokenizers import Tokenizer, decoders, models

    options = {"continuing_subword_prefix": "", "end_of_word_suffix": WORD_END, "unk_token": END}
    try:
        tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges), **options))
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"{vocabulary} and {merges.name} are no byte-level vocabulary: {error}") from None
    tokenizer.add_special_tokens([BEGIN, END])
    tokenizer.decoder = decoders.ByteLevel()
    return Tokenizer.from_str(json.dumps(json.loads(tokenizer.to_str()) | RULES))
