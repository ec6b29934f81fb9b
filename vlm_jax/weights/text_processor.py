"""How a published image-text model reads texts, and how the texts that it generates begin and end."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.data.tokenizer_settings import read_settings
from vlm_jax.errors import InputError
from vlm_jax.types import Json

LONGEST: dict[str, int | None] = {
    "git": None,
    "blip": None,
    "align": 64,  # AlignProcessor's max_length
    "siglip": 64,  # SiglipTokenizer's length, which all its texts have
    "clip": 77,  # the context length of CLIP (Radford et al. 2021, section 2.4)
    "chinese_clip": 52,  # the context length of Chinese CLIP's own code (cn_clip/clip/utils.py, tokenize)
}
"""Tokens of a text at most by family, the frame included; None: as many as the model has positions."""


class Prompts(NamedTuple):
    """The ids around texts of a model that generates."""

    begin_id: int
    """In the place of [CLS]: the first id of what the decoder reads."""
    end_id: int
    """Ends a generated text."""
    pad_id: int
    """Follows the end."""


def _git(config: Mapping[str, Json]) -> Prompts:
    """GitConfig: [CLS] begins, [SEP] ends."""
    return Prompts(_id(config, "bos_token_id", 101), _id(config, "eos_token_id", 102), _id(config, "pad_token_id", 0))


def _blip(config: Mapping[str, Json]) -> Prompts:
    """BlipTextConfig: [DEC] begins, [SEP] ends (`generate` of transformers); `eos_token_id` is not used there.

    [DEC] and [ENC] are the last two rows of the vocabulary (BLIP, models/blip.py, init_tokenizer), and no token of the
    published vocab.txt.
    """
    text = config.get("text_config") or {}
    if not isinstance(text, dict):
        raise InputError(f"config.json says text_config = {text!r}; expected an object of settings")
    rows = _id(text, "vocab_size", 30524)
    return Prompts(_id(text, "bos_token_id", rows - 2), _id(text, "sep_token_id", 102), _id(text, "pad_token_id", 0))


PROMPTS: dict[str, Callable[[Mapping[str, Json]], Prompts]] = {"git": _git, "blip": _blip}
"""From config.json, by the families that generate."""


def _id(config: Mapping[str, Json], key: str, default: int) -> int:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"config.json says {key} = {value!r}; expected a token id")
    return value


class TextProcessor:
    """Texts to the ids of one published model."""

    def __init__(self, tokenizer: Tokenizer, *, longest: int, prompts: Prompts | None = None) -> None:
        self.tokenizer, self.longest, self._prompts = tokenizer, longest, prompts

    @classmethod
    def load(cls, folder: str | Path, family: str, config: Mapping[str, Json], *, positions: int) -> "TextProcessor":
        """The tokenizer in a folder with the rules of a family of `LONGEST`; `positions` are the text side's.

        `InputError` where the folder has no tokenizer, or its settings are not supported.
        """
        limits = (LONGEST[family], read_settings(Path(folder)).longest, positions)
        prompts = PROMPTS[family](config) if family in PROMPTS else None
        longest = min(limit for limit in limits if limit is not None)
        return cls(Tokenizer.load(folder), longest=longest, prompts=prompts)

    @property
    def prompts(self) -> Prompts:
        """The ids around generated texts; `InputError` for a model that generates none."""
        if self._prompts is None:
            raise InputError(f"this model generates no texts; those of {', '.join(PROMPTS)} do")
        return self._prompts

    def __call__(
        self, texts: Sequence[str], *, max_length: int | None = None, truncate: bool = False
    ) -> tuple[Int[np.ndarray, "N T"], Bool[np.ndarray, "N T"]]:
        """Ids, framed and padded to `max_length` or the longest text, and the mask of real tokens.

        `InputError` for a text of more than `longest` tokens, unless `truncate` cuts its end off.
        """
        needed = max(map(len, self.tokenizer.tokens(texts)), default=0) + 2
        most = min(max_length or self.longest, self.longest)
        if needed > most and not truncate:
            raise InputError(f"a text has {needed} tokens with its frame; this model reads {most}: shorten it")
        return self.tokenizer.encode(texts, most if max_length else min(needed, most))
