"""Texts to token ids of a fixed length, with the tokenizers of BERT, RoBERTa, MPNet, XLM-R, ALBERT and CLIP."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int

from vlm_jax.data.configured_tokenizer import settings_of
from vlm_jax.data.special_tokens import ROBERTA_TOKENS, SPECIAL_TOKENS, special_names
from vlm_jax.data.wordpiece import bert_tokenizer, read_tokenizer, train_vocabulary
from vlm_jax.errors import InputError
from vlm_jax.types import Json

if TYPE_CHECKING:
    import tokenizers


LONG_TEXT = 4_000  # characters; of longer texts no more is read than the model sees
CUT_WORDS = 16  # at the end of a part of a text
REMEMBERED = 2**17  # texts whose ids are remembered: some 30 MB

_TAKEN_APART = (
    (re.compile(r"(?<=\w) ?' (?=(?:s|t|re|ve|ll|d|m)\b)"), "'"),
    (re.compile(r"(?<=\w) - (?=\w)"), "-"),
    (re.compile(r"(?<=\d) ?([.,:]) (?=\d)"), r"\1"),
)


class Tokenizer:
    """A tokenizer that frames every text as [CLS] text [SEP], or <s> text </s>, and pads it to one length.

    Too long texts keep their beginning and [SEP].
    """

    def __init__(self, inner: "tokenizers.Tokenizer", name: str):
        inner.no_padding()  # a tokenizer.json may carry both, and either would change the ids
        inner.no_truncation()
        names = special_names(inner)
        pad, unknown, first, last, mask = (inner.token_to_id(token) for token in names)
        missing = [token for token, token_id in zip(names, (pad, 0, first, last), strict=False) if token_id is None]
        if missing:
            raise InputError(
                f"the tokenizer {name} has no {missing[0]} token; expected the tokenizer of a text encoder"
            )
        self._inner, self._name = inner, name
        self.pad_id, self.cls_id, self.sep_id = pad, first, last
        self.mask_id: int | None = mask
        self.unknown_id: int | None = unknown
        self.mask_token = names[-1]
        self.doubles_sep = first is not None and names[2] == ROBERTA_TOKENS[2]
        """Whether two separators stand between the texts of a pair, as in RoBERTa."""
        self._row = lru_cache(REMEMBERED)(self._framed)

    def __reduce__(self) -> tuple[type["Tokenizer"], tuple["tokenizers.Tokenizer", str]]:
        return Tokenizer, (self._inner, self._name)

    @classmethod
    def build(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """A lower-casing WordPiece of at most `vocab_size` tokens, learned from `texts`; [PAD] is 0."""
        return cls(bert_tokenizer(train_vocabulary(texts, vocab_size), lower_case=True), "built from the data")

    @classmethod
    def empty(cls) -> "Tokenizer":
        """A tokenizer of special tokens alone, where no text is read."""
        return cls(bert_tokenizer({token: i for i, token in enumerate(SPECIAL_TOKENS)}, lower_case=True), "empty")

    @classmethod
    def load(cls, source: str | Path) -> "Tokenizer":
        """The tokenizer in a folder (tokenizer.json or vocab.txt), in such a file, or at a hub id."""
        return cls(read_tokenizer(source), str(source))

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json`, which `load` and transformers read, into `folder`."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._inner.save(str(Path(folder) / "tokenizer.json"))

    def settings(self) -> dict[str, Json]:
        """The tokenizer_config.json that belongs beside what `save` writes, for transformers."""
        return settings_of(self._inner)

    @property
    def vocab_size(self) -> int:
        """Rows a word table needs: the largest token id plus one."""
        return max(self._inner.get_vocab(with_added_tokens=True).values()) + 1

    def check_fits(self, rows: int, remedy: str) -> None:
        """Raise `InputError` with `remedy` unless a word table of so many rows has one for every token."""
        beyond = self._inner.id_to_token(self.vocab_size - 1)
        if self.vocab_size > rows:
            raise InputError(
                f"the token {beyond!r} of the tokenizer {self._name} has the id {self.vocab_size - 1}, and the "
                f"word table has {rows} rows; {remedy}"
            )

    def unused(self, rows: int) -> list[int]:
        """The ids of a word table of so many rows that no token has: they are never predicted."""
        return sorted(set(range(rows)).difference(self._inner.get_vocab(with_added_tokens=True).values()))

    def tokens(self, texts: Sequence[str], *, most: int | None = None) -> list[list[int]]:
        """Token ids of each text, unframed: all of them, or at least the first `most`."""
        clean = [text.encode("utf-8", "replace").decode() for text in texts]  # lone surrogates have no UTF-8
        long = {} if most is None else {text: self._first(text, most) for text in clean if len(text) > LONG_TEXT}
        rest = [text for text in clean if text not in long]
        ids = iter([encoding.ids for encoding in self._inner.encode_batch_fast(rest, add_special_tokens=False)])
        return [long[text] if text in long else next(ids) for text in clean]

    def _first(self, text: str, most: int) -> list[int]:
        """The first `most` ids of a long text, from as little of it as that takes: all of it can fill the memory.

        A cut changes the word it falls into, or an added token such as [MASK], and none before: the last words of a
        part are not believed.
        """
        size = LONG_TEXT
        while size < len(text):
            encoding = self._inner.encode(text[:size], add_special_tokens=False)
            last = (encoding.word_ids[-1] if encoding.ids else 0) - CUT_WORDS
            ids = [token for token, word in zip(encoding.ids, encoding.word_ids, strict=True) if word <= last]
            if len(ids) >= most:
                return ids[:most]
            size *= 4
        return self._inner.encode(text, add_special_tokens=False).ids[:most]

    def words(self, text: str) -> list[tuple[str, list[int]]]:
        """Each word and punctuation mark of a text with its token ids: several where it is read in pieces."""
        encoding = self._inner.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False)
        spans: dict[int, tuple[int, int]] = {}
        ids: dict[int, list[int]] = {}
        for word, token, (first, last) in zip(encoding.word_ids, encoding.ids, encoding.offsets, strict=True):
            spans[word] = (spans.get(word, (first, last))[0], last)
            ids.setdefault(word, []).append(token)
        return [(text[slice(*spans[word])], ids[word]) for word in ids]

    def encode(
        self, texts: Sequence[str], max_length: int
    ) -> tuple[Int[np.ndarray, "N {max_length}"], Bool[np.ndarray, "N {max_length}"]]:
        """Token ids (int32) and the mask of real tokens, which covers [CLS] and [SEP] even of an empty text."""
        rows = [self._row(text, max_length) for text in texts]
        input_ids = np.array([ids for ids, _ in rows], np.int32).reshape(len(texts), max_length)
        return input_ids, np.arange(max_length) < np.array([length for _, length in rows], np.int32)[:, None]

    def _framed(self, text: str, max_length: int) -> tuple[Int[np.ndarray, " {max_length}"], int]:
        """The padded ids of a text, and how many are real."""
        framed = [self.cls_id, *self.tokens([text], most=max_length)[0][: max_length - 2], self.sep_id]
        return np.array(framed + [self.pad_id] * (max_length - len(framed)), np.int32), len(framed)

    def encode_pairs(
        self, texts: Sequence[str], pairs: Sequence[str], max_length: int
    ) -> tuple[
        Int[np.ndarray, "N {max_length}"], Bool[np.ndarray, "N {max_length}"], Int[np.ndarray, "N {max_length}"]
    ]:
        """Token ids, mask and token types of two texts a row: [CLS] a [SEP] b [SEP], or <s> a </s> </s> b </s>.

        The types of b and its [SEP] are 1. Of pairs that are too long the longer text loses its end first.
        """
        input_ids = np.full((len(texts), max_length), self.pad_id, np.int32)
        mask, segments = np.zeros(input_ids.shape, bool), np.zeros(input_ids.shape, np.int32)
        between = [self.sep_id] * (2 if self.doubles_sep else 1)
        room = max_length - 2 - len(between)
        for row, (first, second) in enumerate(zip(self.tokens(texts), self.tokens(pairs), strict=True)):
            lengths = _pair_lengths(len(first), len(second), room)
            begin = [self.cls_id, *first[: lengths[0]], *between]
            ids = [*begin, *second[: lengths[1]], self.sep_id]
            input_ids[row, : len(ids)], mask[row, : len(ids)], segments[row, len(begin) : len(ids)] = ids, True, 1
        return input_ids, mask, segments

    def truncated(self, texts: Sequence[str], max_length: int) -> int:
        """How many texts lose their end at `max_length`."""
        return sum(len(ids) > max_length - 2 for ids in self.tokens(texts, most=max_length))

    def token(self, index: int) -> str:
        """The token of an id, as the vocabulary spells it."""
        return self._inner.id_to_token(index)

    def id_of(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it; None where it has no such token."""
        return self._inner.token_to_id(token)

    def decode(self, ids: Sequence[int] | Int[np.ndarray, " T"]) -> str:
        """The text of token ids, special tokens left out; what a BERT tokenizer took apart is put together again.

        That is guessed: `can ' t`, `well - dressed` and `1, 000` become one word each.
        """
        text = self._inner.decode([int(i) for i in ids], skip_special_tokens=True)
        for pattern, joined in _TAKEN_APART:
            text = pattern.sub(joined, text)
        return text


def _pair_lengths(first: int, second: int, room: int) -> tuple[int, int]:
    """Tokens that stay of two texts: `LongestFirst` of the package tokenizers."""
    if first + second <= room:
        return first, second
    short = min(first, second)
    short = short if 2 * short <= room else room // 2
    return (short, room - short) if first <= second else (room - short, short)


def lower_cased(text: str) -> str:
    """The text in small letters, one character after the other, as BERT's normaliser does it."""
    from tokenizers import normalizers

    return normalizers.Lowercase().normalize_str(text.encode("utf-8", "replace").decode())
