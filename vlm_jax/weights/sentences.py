"""How a published encoder makes one vector of a text, as the settings of sentence-transformers beside it say.

Keys, defaults and formulas are those of sentence-transformers 6 (base/modules/transformer.py, sentence_transformer/
modules/pooling.py, base/modules/normalize.py), and the keys of its older versions. Each is obeyed or refused by name.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from vlm_jax.errors import InputError
from vlm_jax.types import Json
from vlm_jax.weights.settings_files import MODULES, POOLING, SENTENCES, TRANSFORMERS, SettingsFiles, kind_of

LEGACY = {  # in the order in which several are put together
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
MODES = tuple(LEGACY.values())
_TEXT = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
_TRANSFORMER: dict[str, tuple[Json, ...]] = {
    "transformer_task": ("feature-extraction",),
    "modality_config": (_TEXT,),
    "module_output_name": ("token_embeddings",),
    **dict.fromkeys(("model_args", "tokenizer_args", "config_args", "processing_kwargs"), ({},)),
    **dict.fromkeys(("query_length", "document_length", "query_expansion"), (None,)),
    "unpad_inputs": (True, False),
}
_ABOUT: dict[str, tuple[Json, ...]] = {"model_type": ("SentenceTransformer",)}
_NORMALIZE: dict[str, tuple[Json, ...]] = dict.fromkeys(
    ("module_input_name", "module_output_name"), ("sentence_embedding",)
)


class SentenceSettings(NamedTuple):
    """What happens around the encoder."""

    pooling: tuple[str, ...] = ("mean",)
    """Of `MODES`; several are put one behind the other."""
    normalize: bool = True
    """Whether vectors are made of length 1."""
    longest: int | None = None
    """Tokens of a text at most, [CLS] and [SEP] included."""
    lower_case: bool = False
    prompt: str = ""
    """Put before every text."""


def sentence_settings(settings_files: SettingsFiles, width: int, limit: int | None = None) -> SentenceSettings:
    """What the files say; without them the mean, of length 1.

    `width` is the encoder's, `limit` the tokens of a text as the tokenizer's files say.
    """
    prompt = _prompt(settings_files.get(SENTENCES))
    longest, lower_case = _transformer(settings_files)
    longest = limit if longest is None else longest
    modules = settings_files.get(MODULES)
    normalize, place = True, POOLING
    if modules is not None:
        kinds = [kind_of(module) for module in modules if kind_of(module) != "Dropout"]
        if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
            raise InputError(f"{MODULES} lists {kinds}; expected Transformer, Pooling and perhaps Normalize")
        paths = {kind_of(module): f"{module['path']}/config.json" for module in modules}
        normalize, place = "Normalize" in kinds, paths["Pooling"]
        if place not in settings_files:
            raise InputError(f"{MODULES} names {place}, which is not there")
        name = paths.get("Normalize", "")
        _require(_object(settings_files.get(name, {}), name), name, _NORMALIZE, ())
    pooling = (
        _pooling(_object(settings_files[place], place), place, width, prompt) if place in settings_files else ("mean",)
    )
    return SentenceSettings(pooling, normalize, longest, lower_case, prompt)


def write_sentence_settings(settings: SentenceSettings, width: int) -> SettingsFiles:
    """The files that `sentence_settings` reads, under the names that every version of sentence-transformers loads."""
    paths = {"Transformer": "", "Pooling": "1_Pooling"} | ({"Normalize": "2_Normalize"} if settings.normalize else {})
    modules: Json = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(paths.items())
    ]
    return {
        MODULES: modules,
        POOLING: {"word_embedding_dimension": width} | {key: mode in settings.pooling for key, mode in LEGACY.items()},
        TRANSFORMERS[0]: {"max_seq_length": settings.longest, "do_lower_case": settings.lower_case},
        SENTENCES: {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    }


def pooled(
    states: Float[np.ndarray, "N T D"], mask: Bool[np.ndarray, "N T"], modes: tuple[str, ...]
) -> Float[np.ndarray, "N E"]:
    """One vector a text of its tokens' states; padding stands at the end. E is D for each mode."""
    shown = mask[:, :, None].astype(np.float32)
    places = np.arange(1, mask.shape[1] + 1, dtype=np.float32)[None, :, None]
    total, rows = (states * shown).sum(1), np.arange(len(mask))
    vectors = {
        "cls": lambda: states[:, 0],
        "max": lambda: np.where(mask[:, :, None], states, -np.inf).max(1),
        "mean": lambda: total / shown.sum(1),
        "mean_sqrt_len_tokens": lambda: total / np.sqrt(shown.sum(1)),
        "weightedmean": lambda: (states * shown * places).sum(1) / (shown * places).sum(1),
        "lasttoken": lambda: states[rows, mask.sum(1) - 1],
    }
    return np.concatenate([vectors[mode]() for mode in modes], axis=1)


def _pooling(config: Mapping[str, Json], name: str, width: int, prompt: str) -> tuple[str, ...]:
    named = ("word_embedding_dimension", "embedding_dimension")
    _require(config, name, dict.fromkeys(named, (width,)), ("pooling_mode", "include_prompt", *LEGACY))
    if config.get("include_prompt") is False and prompt:
        raise InputError(f"{name} says include_prompt = False, which is not supported beside the prompt {prompt!r}")
    for key in LEGACY:
        if key in config and not isinstance(config[key], bool):
            raise InputError(f"{name} says {key} = {config[key]!r}; expected true or false")
    modes = config.get("pooling_mode")
    if modes is None:
        return tuple(mode for key, mode in LEGACY.items() if config.get(key)) or ("mean",)
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or not all(mode in MODES for mode in modes):
        raise InputError(f"{name} says pooling_mode = {modes!r}; supported are {', '.join(MODES)}")
    return tuple(modes)


def _transformer(settings_files: SettingsFiles) -> tuple[int | None, bool]:
    """The most tokens of a text, and whether it is lower-cased first."""
    for name in TRANSFORMERS:
        if name in settings_files:
            config = _object(settings_files[name], name)
            _require(config, name, _TRANSFORMER | {"do_lower_case": (False, True)}, ("max_seq_length",))
            longest = config.get("max_seq_length")
            if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int) or longest < 3):
                raise InputError(f"{name} says max_seq_length = {longest!r}; expected a number of tokens from 3")
            return longest, bool(config.get("do_lower_case"))
    return None, False


def _prompt(value: Json) -> str:
    config = _object(value or {}, SENTENCES)
    _require(config, SENTENCES, _ABOUT, ("__version__", "prompts", "default_prompt_name", "similarity_fn_name"))
    name, prompts = config.get("default_prompt_name"), config.get("prompts") or {}
    if name is None:
        return ""
    if not isinstance(prompts, dict) or not isinstance(prompts.get(name), str):
        raise InputError(f"{SENTENCES} says default_prompt_name = {name!r}, which is none of its prompts")
    return prompts[name]


def _object(value: Json, name: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise InputError(f"{name} holds {type(value).__name__}; expected an object of settings")
    return value


def _require(
    config: Mapping[str, Json], name: str, fixed: Mapping[str, tuple[Json, ...]], read: tuple[str, ...]
) -> None:
    """`InputError` for a key that is not known, or whose value is not among those that are supported; None is open."""
    for key, value in config.items():
        if key not in fixed and key not in read:
            remedy = "take it out of the file if no vector depends on it"
            raise InputError(f"{name} says {key} = {value!r}, which is not supported; {remedy}")
        if key in fixed and value is not None and value not in fixed[key]:
            raise InputError(f"{name} says {key} = {value!r}; supported are {', '.join(map(repr, fixed[key]))}")
