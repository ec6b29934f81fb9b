"""The settings that lie beside a tokenizer's file and change its ids, as transformers saves them.

Each key is obeyed, refused by name unless it has the one value that is supported, or in `IGNORED`: it changes no id.
Names and defaults are those of transformers' tokenizer classes, versions 4 and 5.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from vlm_jax.errors import InputError
from vlm_jax.files import read_settings_file
from vlm_jax.types import Json

CONFIG, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
MODEL_CONFIG = "config.json"
SETTINGS_FILES = (CONFIG, SPECIAL, ADDED)

Kind = Literal["bert", "mpnet", "roberta", "clip", "unigram", "albert", "file"]
CLASSES: dict[str, Kind] = {
    "BertTokenizer": "bert",
    "DistilBertTokenizer": "bert",
    "ElectraTokenizer": "bert",
    "MobileBertTokenizer": "bert",
    "MPNetTokenizer": "mpnet",
    "RobertaTokenizer": "roberta",
    "CLIPTokenizer": "clip",
    "XLMRobertaTokenizer": "unigram",
    "CamembertTokenizer": "unigram",
    "AlbertTokenizer": "albert",
    "PreTrainedTokenizer": "file",
    "TokenizersBackend": "file",
}
"""transformers' classes, without `Fast`, and the rules that each has; `file` takes tokenizer.json as it is."""

MODEL_TYPES: dict[str, Kind] = {
    "bert": "bert",
    "distilbert": "bert",
    "electra": "bert",
    "ernie": "bert",
    "visual_bert": "bert",
    **dict.fromkeys(("git", "blip", "align", "chinese_clip"), "bert"),
    "clip": "clip",
    "mpnet": "mpnet",
    "roberta": "roberta",
    "data2vec-text": "roberta",
    "xlm-roberta": "unigram",
    "camembert": "unigram",
    "albert": "albert",
}
"""The rules of the class that transformers takes for a config.json's `model_type`, where no class is named."""

SWITCHES = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space", "keep_accents")
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FIXED: dict[str, tuple[Json, ...]] = {
    "clean_text": (True,),
    "do_basic_tokenize": (True,),
    "init_inputs": ([],),
    "padding_side": ("right",),
    "split_special_tokens": (False,),
    "truncation_side": ("right",),
    "wordpieces_prefix": ("##",),
}
"""Keys with the only value that is supported; None is the default of each."""
IGNORED = frozenset(
    {
        "_commit_hash", "_from_auto", "_name_or_path", "add_special_tokens", "backend", "cache_dir",
        "chat_template", "clean_up_tokenization_spaces", "errors", "extra_ids", "files_loaded", "force_download",
        "full_tokenizer_file", "is_local", "legacy", "local_files_only", "max_len", "max_length", "merges_file",
        "model_input_names", "name_or_path", "pad_to_multiple_of", "pad_token_type_id", "processor_class",
        "remove_space", "return_attention_mask", "return_token_type_ids", "revision", "sp_model_kwargs",
        "special_tokens_map_file", "stride", "subfolder", "token", "tokenizer_file", "transformers_version",
        "trim_offsets", "truncation_strategy", "trust_remote_code", "use_auth_token", "use_fast", "verbose",
        "vocab_file",
    }
)  # fmt: skip
"""Where files came from, how texts are padded, cut on demand and decoded, and offsets: none of them changes an id."""
DECODER = "added_tokens_decoder"
_LISTS = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")
_NO_LIMIT = 10**9  # transformers writes 10^30 where there is none
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


class AddedToken(NamedTuple):
    """A token that is looked for in a text before it is split."""

    content: str
    id: int | None = None
    """None where the file leaves it open."""
    special: bool = True
    flags: tuple[tuple[str, bool], ...] = ()
    """Those of tokenizers' AddedToken that a file says."""


@dataclass(frozen=True)
class TokenizerSettings:
    """What the files beside a tokenizer say of it."""

    file: Path
    """tokenizer_config.json; it need not be there."""
    exists: bool = False
    """Whether it is."""
    kind: Kind | None = None
    """None where no class is named."""
    implied: Kind | None = None
    """By the model whose config.json lies beside it; it counts where no class is named."""
    switches: dict[str, bool | None] = field(default_factory=dict)
    """Of `SWITCHES`, those that the file has."""
    roles: dict[str, AddedToken] = field(default_factory=dict)
    """Of `ROLES`, those that a file names."""
    added: tuple[AddedToken, ...] = ()
    """Tokens beside the vocabulary, by id where a file says it."""
    longest: int | None = None
    """Tokens of a text at most, [CLS] and [SEP] included; None where there is no limit."""


def read_settings(folder: Path) -> TokenizerSettings:
    """The settings in a folder; `InputError` names the key that is not supported."""
    file = folder / CONFIG
    config, special, extra = (read_settings_file(folder / name) for name in SETTINGS_FILES)
    if DECODER in config:  # it has the tokens of the other two files, which transformers no longer reads then
        special, extra = {}, {}
    known = {*SWITCHES, *ROLES, *FIXED, *IGNORED, *_named(config)}
    known |= {"tokenizer_class", "model_max_length", "never_split", DECODER, *_LISTS}
    for path, values in ((file, config), (folder / SPECIAL, special)):
        if unknown := sorted(set(values) - known):
            raise InputError(
                f"{path} says {unknown[0]} = {values[unknown[0]]!r}, which is not supported; "
                "take it out of the file if it changes no token id"
            )
    for key, choices in FIXED.items():
        if config.get(key) is not None and config[key] not in choices:
            raise InputError(f"{file} says {key} = {config[key]!r}, which is not supported; expected {choices[0]!r}")
    tokens = config | special  # as transformers: the map of special tokens counts before the settings
    roles = {role: _token(tokens[role], file, role) for role in ROLES if tokens.get(role) is not None}
    never_split, special_texts = config.get("never_split"), {token.content for token in roles.values()}
    if never_split and not (isinstance(never_split, list) and set(map(str, never_split)) <= special_texts):
        # Special tokens are never split anyway.
        raise InputError(f"{file} says never_split = {never_split!r}, which is not supported; expected null")
    return TokenizerSettings(
        file, bool(config), _kind(config, file), _implied(folder), _switches(config, file), roles,
        _by_id(config, extra, folder) + _listed(config, special, file), _longest(config, file),
    )  # fmt: skip


def _named(config: dict[str, Json]) -> set[str]:
    """Keys of single tokens that a list of tokens by name has too, as transformers 5 saves it."""
    lists = [config[key] for key in _LISTS if isinstance(config.get(key), dict)]
    return {key for tokens in lists for key, token in tokens.items() if config.get(key) == token}


def _kind(config: dict[str, Json], file: Path) -> Kind | None:
    name = config.get("tokenizer_class")
    if name is None:
        return None
    kind = CLASSES.get(name.removesuffix("Fast")) if isinstance(name, str) else None
    if kind is None:
        raise InputError(f"{file} says tokenizer_class = {name!r}; supported are {', '.join(CLASSES)}")
    return kind


def _implied(folder: Path) -> Kind | None:
    model_type = read_settings_file(folder / MODEL_CONFIG).get("model_type")
    return MODEL_TYPES.get(model_type) if isinstance(model_type, str) else None


def _switches(config: dict[str, Json], file: Path) -> dict[str, bool | None]:
    switches = {name: config[name] for name in SWITCHES if name in config}
    for name, value in switches.items():
        if not isinstance(value, bool) and value is not None:
            raise InputError(f"{file} says {name} = {value!r}; expected true, false or null")
    return {name: value for name, value in switches.items() if value is not None or name == "strip_accents"}


def _token(value: Json, file: Path, key: str, **overrides: int | bool) -> AddedToken:
    """A token of a file: its text, or an object with its text and flags."""
    if isinstance(value, str) and value:
        return AddedToken(value, **overrides)
    if not isinstance(value, dict) or not isinstance(value.get("content"), str) or not value["content"]:
        raise InputError(f"{file} says {key} = {value!r}; expected a token's text")
    flags = tuple((name, bool(value[name])) for name in _FLAGS if name in value)
    return AddedToken(value["content"], **{"special": bool(value.get("special", True)), "flags": flags} | overrides)


def _by_id(config: dict[str, Json], extra: dict[str, Json], folder: Path) -> tuple[AddedToken, ...]:
    """Tokens whose ids a file gives: `DECODER` of tokenizer_config.json, else added_tokens.json."""
    listed = config.get(DECODER)
    path = folder / (CONFIG if listed else ADDED)
    overrides = {} if listed else {"special": False}
    try:
        by_id = {int(index): token for index, token in (listed or {}).items()}
        by_id |= {int(index): token for token, index in extra.items()}
    except (ValueError, TypeError, AttributeError):
        raise InputError(f"{path} lists no tokens with their ids") from None
    return tuple(_token(value, path, f"token {index}", id=index, **overrides) for index, value in sorted(by_id.items()))


def _listed(config: dict[str, Json], special: dict[str, Json], file: Path) -> tuple[AddedToken, ...]:
    """Special tokens without ids; of lists that differ transformers' versions read different ones."""
    lists: dict[str, list[AddedToken]] = {}
    for values, name in ((config, CONFIG), (special, SPECIAL)):
        for key in _LISTS:
            tokens = values.get(key) or []
            tokens = list(tokens.values()) if isinstance(tokens, dict) else tokens
            if not isinstance(tokens, list):
                raise InputError(f"{file.with_name(name)} says {key} = {tokens!r}; expected a list of tokens")
            if tokens:
                lists[f"{key} of {name}"] = [_token(token, file.with_name(name), key) for token in tokens]
    (first, tokens), *others = lists.items() or [("", [])]
    for other, more in others:
        if {token.content for token in more} != {token.content for token in tokens}:
            raise InputError(f"in {file.parent} {first} and {other} name different tokens; leave one of them")
    return tuple(tokens)


def _longest(config: dict[str, Json], file: Path) -> int | None:
    value = config.get("model_max_length")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 3:
        raise InputError(f"{file} says model_max_length = {value!r}; expected a number of tokens from 3")
    return None if value > _NO_LIMIT else int(value)
