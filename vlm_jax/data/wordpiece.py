"""BERT's WordPiece, learned from texts or read, and RoBERTa's byte-level BPE, read: from files or the hub."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_jax.data.clip_tokens import BEGIN, clip_tokenizer
from vlm_jax.data.configured_tokenizer import configured
from vlm_jax.data.special_tokens import MPNET_TOKENS, ROBERTA_TOKENS, SPECIAL_TOKENS
from vlm_jax.data.tokenizer_settings import MODEL_CONFIG, SETTINGS_FILES, read_settings
from vlm_jax.data.unigram import refuse_model_alone
from vlm_jax.errors import InputError
from vlm_jax.packages import PREFIX
from vlm_jax.text_lines import first_line, read_lines

if TYPE_CHECKING:
    import tokenizers

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")  # the first one found is read
MERGES = "merges.txt"  # beside vocab.json


def bert_tokenizer(
    vocabulary: dict[str, int], *, lower_case: bool, names: tuple[str, ...] = SPECIAL_TOKENS
) -> "tokenizers.Tokenizer":
    """A tokenizer with BERT's normaliser, word splitter and [CLS] text [SEP] template around `vocabulary`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    takes_space = names[-1] if names == MPNET_TOKENS else ""  # the mask takes the space before it, as in RoBERTa
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, lstrip=name == takes_space) for name in names if name in vocabulary]
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    _, _, first, last, _ = names
    if first in vocabulary and last in vocabulary:
        tokenizer.post_processor = processors.BertProcessing((last, vocabulary[last]), (first, vocabulary[first]))
    return tokenizer


def train_vocabulary(texts: Iterable[str], vocab_size: int) -> dict[str, int]:
    """Token -> id of a lower-case WordPiece learned from `texts`, the same in every process.

    Characters are all known, the rarest ones excepted where they would not fit; merges fill the rest.
    """
    from tokenizers import trainers

    if vocab_size <= len(SPECIAL_TOKENS):
        raise InputError(f"model.text.vocab_size is {vocab_size}; {len(SPECIAL_TOKENS)} special tokens need more")
    words = _count_words(texts)
    if not words:
        raise InputError("cannot build a tokenizer: the training texts hold no word")
    alphabet = _alphabet(words, vocab_size - len(SPECIAL_TOKENS))
    # The trainer numbers characters in the order of a randomly seeded hash map, and merges break ties by
    # these numbers. Given as special tokens, characters are numbered by us and nothing is left to chance.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, *alphabet],
        limit_alphabet=vocab_size,
        show_progress=False,
    )
    tokenizer = bert_tokenizer({token: i for i, token in enumerate(SPECIAL_TOKENS)}, lower_case=True)
    known = set(alphabet)
    known_words = sorted(word for word in words if all(character in known for character in _characters(word)))
    tokenizer.train_from_iterator((" ".join([word] * words[word]) for word in known_words), trainer)
    return tokenizer.get_vocab(with_added_tokens=True)


def _count_words(texts: Iterable[str]) -> Counter[str]:
    from tokenizers import normalizers, pre_tokenizers

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text, times in Counter(texts).items():
        clean = normalizer.normalize_str(text.encode("utf-8", "replace").decode())
        for word, _ in splitter.pre_tokenize_str(clean):
            counts[word] += times
    return counts


def _characters(word: str) -> list[str]:
    return [word[0], *("##" + character for character in word[1:])]


def _alphabet(words: Counter[str], size: int) -> list[str]:
    counts: Counter[str] = Counter()
    for word, times in words.items():
        for character in _characters(word):
            counts[character] += times
    return sorted(sorted(counts, key=lambda character: (-counts[character], character))[:size])


def read_tokenizer(source: str | Path) -> "tokenizers.Tokenizer":
    """The tokenizer in a folder or file, at `package:NAME/folder` or a hub id; `InputError` where there is none."""
    if str(source).startswith(PREFIX):
        from vlm_jax.data.joined_zip import package_path  # here: commands start without zips and locks

        path = package_path(str(source))
    else:
        path = Path(source).expanduser()
    if path.is_dir():
        for name in TOKENIZER_FILES:
            if (path / name).is_file():
                return _read_file(path / name)
        refuse_model_alone(path)
        raise InputError(f"the folder {path} holds no tokenizer; expected {' or '.join(TOKENIZER_FILES)} in it")
    return _read_file(path if path.is_file() else _from_hub(str(source)))


def _read_file(path: Path) -> "tokenizers.Tokenizer":
    from tokenizers import Tokenizer

    settings = read_settings(path.parent)
    if path.name == "vocab.json":
        return configured(_byte_level(path, path.with_name(MERGES)), settings)
    if path.suffix == ".json":
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            raise InputError(f"{path} is not a tokenizer.json: {error}") from None
        return configured(tokenizer, settings)
    try:
        lines = read_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the vocabulary {path}: {error}") from None
    vocabulary = {token: index for index, token in enumerate(lines)}
    names = MPNET_TOKENS if (settings.kind or settings.implied) == "mpnet" else SPECIAL_TOKENS
    if names[1] not in vocabulary or names[2] not in vocabulary:
        expected = f"expected one token a line, {names[1]} and {names[2]} among them"
        raise InputError(f"{path} is not a BERT vocabulary; {expected}")
    if len(vocabulary) != len(lines):
        raise InputError(f"the vocabulary {path} lists a token twice")
    return configured(bert_tokenizer(vocabulary, lower_case=True, names=names), settings)


def _byte_level(vocabulary: Path, merges: Path) -> "tokenizers.Tokenizer":
    """GPT-2's, RoBERTa's or CLIP's tokenizer from its two files."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    try:
        tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"{vocabulary} and {merges.name} are no byte-level vocabulary: {error}") from None
    if tokenizer.token_to_id(BEGIN) is not None:
        return clip_tokenizer(vocabulary, merges)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    vocab = tokenizer.get_vocab()
    # The mask takes the space before it, as RoBERTa was trained.
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, lstrip=t == ROBERTA_TOKENS[-1]) for t in ROBERTA_TOKENS if t in vocab]
    )
    return tokenizer


def _from_hub(name: str) -> Path:
    """The tokenizer file of a hub repository, from the local cache where it is there."""
    unknown = f"no tokenizer {name!r}: it is neither a folder nor a file"
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise InputError(unknown)
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache

    for file in TOKENIZER_FILES:
        cached = try_to_load_from_cache(name, file)
        if isinstance(cached, str):
            return Path(cached)
    try:
        # One question first: a download retries for 20 s where there is no network.
        offered = {file.rfilename for file in HfApi().model_info(name, timeout=10).siblings or ()}
        wanted = next((file for file in TOKENIZER_FILES if file in offered), None)
        for settings in offered.intersection((*SETTINGS_FILES, MODEL_CONFIG)):
            hf_hub_download(name, settings)  # lands beside the tokenizer
        if wanted == "vocab.json":
            hf_hub_download(name, MERGES)
        path = wanted and Path(hf_hub_download(name, wanted))
    except Exception as error:  # the hub's client answers with a dozen kinds of errors
        reason = first_line(error)
        raise InputError(f"{unknown}, and the hub does not give it: {reason}") from None
    if not path:
        raise InputError(f"the hub's {name!r} holds no tokenizer; expected {' or '.join(TOKENIZER_FILES)}")
    return path
