"""Fresh parameters replaced by pretrained ones, and a record of what was taken, left behind and stays fresh.

A source is strict: whatever part of it the model has must fit leaf by leaf, or it is refused with the settings that
would fit.
"""

import itertools
from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from vlm_jax.config.architecture import Architecture, Layout
from vlm_jax.config.encoders import GridEncoder, VisionTransformer
from vlm_jax.config.initialization import WordsInit
from vlm_jax.config.run import Config
from vlm_jax.config.trunk import TextConfig
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.errors import InputError
from vlm_jax.settings.groups import Group, flat, tree_of
from vlm_jax.training.pretrained import Pretrained, generic, open_pretrained, source_tokenizer, specific
from vlm_jax.training.word_vectors import vectors_of_tokens
from vlm_jax.trees import Array, flatten, shortened, unflatten
from vlm_jax.types import Json, Parameters
from vlm_jax.weights.export import TEXT_SIDE

# Settings that decide what text weights compute, or their shapes.
TEXT_SETTINGS = ("vocab_size", "text_feature_size", "type_vocab_size", "first_position")
TRUNK_SETTINGS = (
    "hidden_size", "num_attention_heads", "num_layers", "intermediate_size", "hidden_act", "layer_norm_eps",
    "use_qk_norm",
)  # fmt: skip
# What published text models alone have.
TEXT_MODEL_SETTINGS = ("relative_attention_num_buckets", "num_hidden_groups", "project_embeddings")
IMAGE_SETTINGS = ("max_image_positions", "modality_type_vocab_size")
WORDS = "text/word/embedding"
FREE_IMAGE_SETTINGS = (*GridEncoder.model_fields, "output")  # of an image encoder: what the trunk does with its grid


Leaves = Mapping[str, Array | jax.ShapeDtypeStruct]
Chosen = tuple[dict[str, np.ndarray], list[str]]
"""Leaves of a source by the paths that they have in the model, and what was changed of them."""


class Start(NamedTuple):
    """Parameters to train from, and what `weights.json` says of them."""

    params: Parameters
    record: dict[str, Json] | None
    """None where nothing is pretrained."""


def start(config: Config, params: Parameters, answers: tuple[str, ...], tokenizer: Tokenizer | None = None) -> Start:
    """`params` with everything that the config's sources have for them.

    Word vectors need the run's `tokenizer`; without it their sizes alone are checked.
    """
    if not isinstance(config, TextConfig):
        return Start(params, None)
    model, fresh = config.architecture, flatten(params)
    taken: dict[str, np.ndarray] = {}
    sources = []
    words = partial(_word_vectors, tokenizer or Tokenizer.empty())
    text = words if isinstance(config.init, WordsInit) else _text_side
    for part, choose in (("model", _whole_model), ("text", text), ("image", _image_side)):
        setting, name = f"init.{part}", getattr(config.init, part, None)
        if name is None:
            continue
        source = open_pretrained(name)
        chosen, notes = choose(config, source, answers, fresh)
        problems = [
            f"{path} {list(leaf.shape)} for {list(fresh[path].shape) if path in fresh else 'nothing'}"
            for path, leaf in chosen.items()
            if path not in fresh or leaf.shape != fresh[path].shape
        ]
        if problems or not chosen:
            raise InputError(f"{setting} {name} does not fit the model: {shortened(problems) or 'nothing in it does'}")
        taken |= chosen
        used = {generic(path, model) for path in chosen} | set(chosen)
        sources.append(
            {
                "setting": setting,
                "family": source.family,
                **source.origin._asdict(),
                "tensors": len(chosen),
                "taken": groups(chosen),
                "left_behind": groups({path for path in source.leaves if path not in used}),
                "changed": notes,
            }
        )
    if not sources:
        return Start(params, None)
    merged = {path: np.asarray(taken[path], leaf.dtype) if path in taken else leaf for path, leaf in fresh.items()}
    record = {"sources": sources, "fresh": groups({path for path in fresh if path not in taken})}
    return Start(unflatten(merged), record)


def describe(record: Mapping[str, Json]) -> list[str]:
    """The record in lines for people."""
    lines = []
    for source in record["sources"]:
        line = f"{source['setting']} {source['source']} ({source['family']}): {', '.join(source['taken'])}"
        lines.append(line + "".join(f"; {note}" for note in source["changed"]))
        if source["left_behind"]:
            lines.append(f"left behind: {', '.join(source['left_behind'])}")
    return [*lines, f"freshly initialised: {', '.join(record['fresh']) or 'nothing'}"]


def groups(paths: Iterable[str]) -> list[str]:
    """Paths by their first two names, layers of a trunk together: `embed/norm`, `trunk/layer_*`, `image`.

    Of a layer, its side and its attention to the other side are named: `trunk/layer_*/text/cross_attention`.
    """
    names = []
    for path in sorted(paths):
        first, *rest = path.split("/")
        name = first if first == "image" else "/".join([first, *rest[:1]])
        stem, _, number = name.rpartition("_")
        if first == "trunk" and number.isdigit():
            parts = [part for part in rest[1:] if part in ("image", "text") or part.startswith("cross_attention")]
            name = "/".join([f"{stem}_*", *(part.removesuffix("_norm") for part in parts)])
        names.append(name)
    return [name for name, _ in itertools.groupby(sorted(names))]


def _text_side(config: TextConfig, source: Pretrained, answers: tuple[str, ...], fresh: Leaves) -> Chosen:
    model, init = config.architecture, config.init
    if source.model is None:
        raise InputError(f"init.text {init.text} is an image encoder; give it as init.image")
    if own := [name for name in TEXT_MODEL_SETTINGS if getattr(source.model, name) != getattr(model, name)]:
        raise InputError(
            f"init.text {init.text} is {source.family!r} with {own[0]} = {getattr(source.model, own[0])!r}, which the "
            "trunk of a vision-language model has not; give a text encoder without it"
        )
    names = TEXT_SETTINGS + (TRUNK_SETTINGS if init.trunk else ())
    wrong = _differing(source.model, model, names)
    if wrong:
        alone = " or --init.trunk false" if not set(TEXT_SETTINGS) & {*wrong} else ""
        raise InputError(f"init.text {init.text} needs {_options(wrong, model)}{alone}")
    source_leaves = {path: leaf for path, leaf in source.leaves.items() if TEXT_SIDE.match(path)}
    sides = ("text/", "embed/") if source.model.hidden_size == model.hidden_size else ("text/",)
    chosen = {path: leaf for path, leaf in source_leaves.items() if path.startswith(sides)}
    if init.trunk:
        chosen |= {specific(path, model): leaf for path, leaf in source_leaves.items() if path.startswith("trunk/")}
        heads = ("head/pooler/", "head/words/")  # BERT's own, as far as the model has them
        chosen |= {path: leaf for path, leaf in source.leaves.items() if path.startswith(heads) and path in fresh}
    chosen, notes = _with_positions(config, chosen)
    if init.trunk and source.model.attention_pattern != model.attention_pattern == "bidirectional":
        notes = [*notes, f"its attention was {source.model.attention_pattern}, the model's is bidirectional"]
    return chosen, notes


def _word_vectors(
    tokenizer: Tokenizer, config: TextConfig, source: Pretrained, answers: tuple[str, ...], fresh: Leaves
) -> Chosen:
    """The word table alone, for the run's own tokenizer."""
    name, rows = config.init.text, fresh[WORDS].shape[0]
    if source.model is None:
        raise InputError(f"init.text {name} is an image encoder; give it as init.image")
    wrong = _differing(source.model, config.architecture, ("text_feature_size",))
    if wrong:
        raise InputError(f"init.text {name} needs {_options(wrong, config.architecture)}")
    table, shared = vectors_of_tokens(tokenizer, rows, Tokenizer.load(source_tokenizer(name)), source.leaves[WORDS])
    return {WORDS: table}, [f"{shared:,} tokens have a vector there, the others the mean of those of their pieces"]


def _with_positions(config: TextConfig, chosen: dict[str, np.ndarray]) -> Chosen:
    """The position table in the model's length, where that is wanted."""
    path, model, way = "text/position/embedding", config.architecture, config.init.positions
    table, length = chosen[path], model.max_position_embeddings
    if len(table) == length:
        return chosen, []
    fits = len(table) >= model.first_position + config.model.text.max_length
    ways = (_options({"max_position_embeddings": len(table)}, model) + " or " if fits else "") + "--init.positions "
    sizes = f"the pretrained position table has {len(table)} rows, max_position_embeddings is {length}"
    if way == "exact":
        ways += "interpolate" if length > len(table) else "cut, or --init.positions interpolate"
        raise InputError(f"{sizes}; give {ways}")
    if way == "cut":
        if length > len(table):
            raise InputError(f"{sizes}, and it cannot be cut to that; give {ways}interpolate")
        return chosen | {path: table[:length]}, [f"positions cut from {len(table)} to {length}"]
    first = model.first_position  # rows before it are of no position
    places = np.linspace(0, len(table) - first - 1, length - first)
    rows = np.arange(len(table) - first)
    stretched = np.stack([np.interp(places, rows, column) for column in table[first:].T], axis=1)
    stretched = np.concatenate([table[:first], stretched.astype(np.float32)])
    return chosen | {path: stretched}, [f"positions interpolated from {len(table)} to {length}"]


def _image_side(config: TextConfig, source: Pretrained, answers: tuple[str, ...], fresh: Leaves) -> Chosen:
    name = config.init.image
    if source.image is None or source.input is None:
        raise InputError(f"init.image {name} has no image encoder; give it as init.text")
    settings, wanted = tree_of(config.architecture.image), tree_of(source.image)
    wrong = {
        f"model.image.{setting}": value
        for setting, value in sorted(wanted.items(), key=lambda entry: entry[0] != "kind")
        if setting not in FREE_IMAGE_SETTINGS and settings.get(setting) != value
    }
    if wrong:
        raise InputError(f"init.image {name} needs {_spelled(wrong)}")
    for setting in ("mean", "std"):
        value = getattr(source.input, setting)
        if not np.allclose(getattr(config.image, setting), value, atol=1e-4):
            shown = " ".join(f"{x:.6g}" for x in value)
            raise InputError(f"init.image {name} was trained with --image.{setting} {shown}; give it")
    recipe, here = flat(tree_of(source.input)), flat(tree_of(config.image))
    other = {
        f"image.{setting}": value
        for setting, value in recipe.items()
        if setting.startswith(("size", "resize")) and here.get(setting) != value
    }
    notes = [f"trained on images with {_spelled(other)}, which this run has not"] if other else []
    return {path: leaf for path, leaf in source.leaves.items() if path.startswith("image/")}, notes


def _whole_model(config: TextConfig, source: Pretrained, answers: tuple[str, ...], fresh: Leaves) -> Chosen:
    name, model = config.init.model, config.architecture
    if source.model is None or source.family not in ("run", "visual_bert"):
        raise InputError(f"init.model {name} is no whole model; it can be init.text or init.image (--init.kind parts)")
    ours, theirs = model.image, source.model.image
    image = tuple(name for name in ("positions", "projection", "norm") if hasattr(ours, name) and hasattr(theirs, name))
    if isinstance(ours, VisionTransformer) and isinstance(theirs, VisionTransformer):  # shapes do not tell them apart
        image = tuple(VisionTransformer.model_fields)
    wrong = _differing(source.model, model, (*TRUNK_SETTINGS, "fusion", *TEXT_SETTINGS, *IMAGE_SETTINGS))
    wrong |= {f"image.{setting}": value for setting, value in _differing(theirs, ours, image).items()}
    if wrong:
        raise InputError(f"init.model {name} needs {_options(wrong, model)}")
    chosen = {}
    for path, leaf in source.leaves.items():
        target_path = specific(path.replace("head/answers/classifier", "head/classifier"), model)
        if target_path.startswith("head/classifier") and source.answers != answers:
            continue  # its classes mean other answers
        if target_path in fresh:
            chosen[target_path] = leaf
    return _with_positions(config, chosen)


def _differing(wanted: Group, settings: Group, names: tuple[str, ...]) -> dict[str, object]:
    """The settings of these names that are other than wanted, as wanted."""
    return {name: getattr(wanted, name) for name in names if getattr(wanted, name) != getattr(settings, name)}


def _options(settings: Mapping[str, object], model: Architecture) -> str:
    """Settings of an architecture as options of a command."""
    places = {"vocab_size": "model.text.vocab_size", "fusion": "model.fusion.kind"}
    layout = (*Layout.model_fields, "text_feature_size")
    places |= {name: f"model.layout.{name}" for name in layout}
    options = {places.get(name, f"model.{name}"): value for name, value in settings.items()}
    custom = any(name in layout for name in settings) and all(
        getattr(model, name) == field.default for name, field in Layout.model_fields.items()
    )
    return _spelled(({"model.layout.kind": "custom"} if custom else {}) | options)


def _spelled(settings: Mapping[str, object]) -> str:
    """Settings as options of a command."""
    shown = []
    for name, value in settings.items():
        words = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words = words.lower() if isinstance(value, bool) else words
        shown.append(f"--{name.replace('_', '-')} {words}")
    return " ".join(shown)
