"""A tokenizer with the settings that lie beside its file, so that it gives the ids that transformers gives."""

import json
from typing import TYPE_CHECKING, get_args

from vlm_jax.data.clip_tokens import RULES, is_clip
from vlm_jax.data.special_tokens import MPNET_TOKENS, special_names
from vlm_jax.data.tokenizer_settings import AddedToken, Kind, TokenizerSettings
from vlm_jax.data.unigram import UNIGRAM_SWITCHES, unigram_rules
from vlm_jax.errors import InputError
from vlm_jax.types import Json

if TYPE_CHECKING:
    import tokenizers

_ROLES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
_BERT = {  # tokenizer_config.json's name, the normalizer's, and the default of transformers' class
    "do_lower_case": ("lowercase", True),
    "strip_accents": ("strip_accents", None),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
}


def configured(tokenizer: "tokenizers.Tokenizer", settings: TokenizerSettings) -> "tokenizers.Tokenizer":
    """`tokenizer` as `settings` say; the same object where they change nothing.

    Raises `InputError` with the key that the tokenizer cannot obey.
    """
    if not (settings.exists or settings.roles or settings.added):
        return tokenizer
    from tokenizers import Tokenizer

    packed = json.loads(tokenizer.to_str())
    before = json.dumps(packed)
    kind = _check_kind(packed, settings)
    if kind in ("bert", "mpnet") and settings.exists:
        packed["normalizer"] |= {
            inner: settings.switches.get(name, default) for name, (inner, default) in _BERT.items()
        }
    if kind == "roberta" and settings.exists:
        packed["pre_tokenizer"]["add_prefix_space"] = bool(settings.switches.get("add_prefix_space"))
    if kind == "clip" and settings.exists:
        packed |= RULES
    if kind in UNIGRAM_SWITCHES and settings.exists:
        packed |= unigram_rules(kind, packed, settings.switches)
    names = dict(zip(_ROLES, special_names(tokenizer), strict=True))
    for role, name in names.items():
        token = settings.roles.get(role)
        if kind == "clip" and role == "pad_token":
            continue  # padding lies behind the end of a causal text, where nothing sees it
        if token and token.content != name:
            raise InputError(
                f"{settings.file} says {role} = {token.content!r}, which is not supported beside this vocabulary; "
                f"expected {name!r}"
            )
    _add(packed, _tokens(settings, tokenizer))
    made = tokenizer if json.dumps(packed) == before else Tokenizer.from_str(json.dumps(packed))
    for token in settings.added:
        if token.id is not None and made.token_to_id(token.content) != token.id:
            raise InputError(
                f"{settings.file} and the files beside it give the token {token.content!r} the id {token.id}; "
                f"the vocabulary gives it {made.token_to_id(token.content)}"
            )
    return made


def _check_kind(packed: dict[str, Json], settings: TokenizerSettings) -> Kind:
    """Whose rules the tokenizer follows: BERT's, RoBERTa's, a Unigram class's, or those of its file alone."""
    normalizer, splitter = (packed.get(name) or {} for name in ("normalizer", "pre_tokenizer"))
    shapes = {"bert": normalizer.get("type") == "BertNormalizer", "roberta": splitter.get("type") == "ByteLevel"}
    shapes["clip"] = is_clip(packed["model"])
    shapes["mpnet"], is_unigram = shapes["bert"], packed["model"]["type"] == "Unigram"
    shown = {name for name in get_args(Kind) if shapes.get(name, is_unigram) or name == "file"}
    implied = settings.implied if settings.implied in shown else None
    kind = settings.kind or implied or next((name for name, fits in shapes.items() if fits), "file")
    if kind not in shown:
        raise InputError(f"{settings.file} names a tokenizer_class of {kind!r}, and the tokenizer beside it is none")
    inner = normalizer if shapes["bert"] else {}
    own = {name: inner.get(key) for name, (key, _) in _BERT.items()}
    own["add_prefix_space"] = splitter.get("add_prefix_space")
    if kind == "clip":
        own["do_lower_case"] = True
    obeyed = {"bert": set(_BERT), "mpnet": set(_BERT), "roberta": {"add_prefix_space"}, "clip": set(), "file": set()}
    obeyed |= UNIGRAM_SWITCHES
    for name, value in settings.switches.items():
        if name not in obeyed[kind] and bool(value) != bool(own.get(name)):
            raise InputError(f"{settings.file} says {name} = {value!r}, which the tokenizer beside it cannot obey")
    return kind


def _tokens(settings: TokenizerSettings, tokenizer: "tokenizers.Tokenizer") -> list[AddedToken]:
    """All tokens that a file speaks of, those with an id first; new ones come behind the vocabulary."""
    tokens = {token.content: token for token in settings.added if token.id is not None}
    for token in (*settings.roles.values(), *settings.added):
        tokens.setdefault(token.content, token)
    free, placed = tokenizer.get_vocab_size(with_added_tokens=True), []
    for token in tokens.values():
        index = tokenizer.token_to_id(token.content)
        if index is None:
            index, free = free, free + 1
        placed.append(token._replace(id=index))
    return placed


def _add(packed: dict[str, Json], tokens: list[AddedToken]) -> None:
    """Into the list of added tokens, with the flags that a file says."""
    listed = {entry["content"]: entry for entry in packed["added_tokens"]}
    for token in tokens:
        default = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": not token.special}
        entry = {"id": token.id, "content": token.content, **default}
        listed[token.content] = entry | listed.get(token.content, {}) | dict(token.flags) | {"special": token.special}
    packed["added_tokens"] = sorted(listed.values(), key=lambda entry: entry["id"])


def settings_of(tokenizer: "tokenizers.Tokenizer") -> dict[str, Json]:
    """The tokenizer_config.json with which transformers reads the tokenizer as it is.

    Without one its classes take their defaults, and lower-case what a cased tokenizer does not.
    """
    packed = json.loads(tokenizer.to_str())
    normalizer, splitter = (packed.get(name) or {} for name in ("normalizer", "pre_tokenizer"))
    names = special_names(tokenizer)
    settings: dict[str, Json] = dict(zip(_ROLES, names, strict=True))
    if normalizer.get("type") == "BertNormalizer":
        switches = {name: normalizer[inner] for name, (inner, _) in _BERT.items()}
        kind = "MPNetTokenizer" if names == MPNET_TOKENS else "BertTokenizer"
        return {"tokenizer_class": kind} | switches | settings
    if splitter.get("type") == "ByteLevel":
        switches = {"add_prefix_space": splitter["add_prefix_space"]}
        return {"tokenizer_class": "RobertaTokenizer"} | switches | settings
    if is_clip(packed["model"]):
        _, _, first, last, _ = names
        return {"tokenizer_class": "CLIPTokenizer", "bos_token": first, "eos_token": last}
    return {"tokenizer_class": "PreTrainedTokenizerFast"} | settings
