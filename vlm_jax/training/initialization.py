"""Fresh parameters replaced by pretrained ones, and a record of what was taken, left behind and stays fresh.

A source is strict: whatever part of it the model has must fit leaf by leaf, or it is refused with the settings that
would fit.
"""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vlm_jax.config import Config, Model, leaves
from vlm_jax.errors import InputError
from vlm_jax.training.pretrained import Pretrained, generic, open_pretrained, specific
from vlm_jax.training.state import Parameters
from vlm_jax.trees import flatten, shortened, unflatten
from vlm_jax.weights.export import TEXT_SIDE

# Settings that decide what text weights compute, or their shapes.
TEXT_SETTINGS = ("vocab_size", "feature_size", "type_vocab_size", "first_position")
TRUNK_SETTINGS = (
    "hidden_size",
    "num_attention_heads",
    "num_layers",
    "intermediate_size",
    "activation",
    "layer_norm_eps",
)


class Start(NamedTuple):
    """Parameters to train from, and what `weights.json` says of them."""

    params: Parameters
    record: dict[str, Any] | None
    """None where nothing is pretrained."""


def start(config: Config, params: Parameters, answers: tuple[str, ...]) -> Start:
    """`params` with everything that the config's sources have for them."""
    model, fresh = config.model, flatten(params)
    taken: dict[str, np.ndarray] = {}
    sources = []
    for setting, name, choose in (
        ("model.init_from", model.init_from, _whole_model),
        ("model.text.init_from", model.text.init_from, _text_side),
        ("model.image.init_from", model.image.init_from, _image_side),
    ):
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
                "source": source.origin.source,
                "family": source.family,
                "revision": source.origin.revision,
                "sha256": source.origin.sha256,
                "tensors": len(chosen),
                "taken": groups(chosen),
                "left_behind": groups({path for path in source.leaves if path not in used}),
                "changed": notes,
            }
        )
    if not sources:
        return Start(params, None)
    merged = {path: jnp.asarray(taken[path], leaf.dtype) if path in taken else leaf for path, leaf in fresh.items()}
    record = {"sources": sources, "fresh": groups({path for path in fresh if path not in taken})}
    return Start(unflatten(merged), record)


def describe(record: Mapping[str, Any]) -> list[str]:
    """The record in lines for people."""
    lines = []
    for source in record["sources"]:
        line = f"{source['setting']} {source['source']} ({source['family']}): {', '.join(source['taken'])}"
        lines.append(line + "".join(f"; {note}" for note in source["changed"]))
        if source["left_behind"]:
            lines.append(f"left behind: {', '.join(source['left_behind'])}")
    return [*lines, f"freshly initialised: {', '.join(record['fresh']) or 'nothing'}"]


def groups(paths: Any) -> list[str]:
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


def _text_side(
    config: Config, source: Pretrained, answers: tuple[str, ...], fresh: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], list[str]]:
    model = config.model
    if source.model is None:
        raise InputError(f"model.text.init_from {model.text.init_from} is a CNN; give it as model.image.init_from")
    wanted = {f"text.{name}": getattr(source.model.text, name) for name in TEXT_SETTINGS}
    if model.text.init_trunk:
        wanted |= {name: getattr(source.model, name) for name in TRUNK_SETTINGS}
    wrong = {name: value for name, value in wanted.items() if _setting(model, name) != value}
    if wrong:
        alone = " or --model.text.no-init-trunk" if not any(name.startswith("text.") for name in wrong) else ""
        raise InputError(f"model.text.init_from {model.text.init_from} needs {_options(wrong)}{alone}")
    source_leaves = {path: leaf for path, leaf in source.leaves.items() if TEXT_SIDE.match(path)}
    sides = ("text/", "embed/") if source.model.hidden_size == model.hidden_size else ("text/",)
    chosen = {path: leaf for path, leaf in source_leaves.items() if path.startswith(sides)}
    if model.text.init_trunk:
        chosen |= {specific(path, model): leaf for path, leaf in source_leaves.items() if path.startswith("trunk/")}
        heads = ("head/pooler/", "head/words/")  # BERT's own, as far as the model has them
        chosen |= {path: leaf for path, leaf in source.leaves.items() if path.startswith(heads) and path in fresh}
    return _with_positions(config, chosen)


def _with_positions(config: Config, chosen: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The position table in the model's length, where that is asked for."""
    path, text = "text/position/embedding", config.model.text
    table, length = chosen[path], text.max_position_embeddings
    if len(table) == length:
        return chosen, []
    stays = f"set model.text.max_position_embeddings to {len(table)}, or "
    ways = (stays if len(table) >= text.first_position + text.max_length else "") + "--model.text.init-positions "
    if text.init_positions == "exact":
        ways += "interpolate" if length > len(table) else "cut or --model.text.init-positions interpolate"
        raise InputError(
            f"the pretrained position table has {len(table)} rows, model.text.max_position_embeddings is {length}; "
            f"{ways}"
        )
    if text.init_positions == "cut":
        if length > len(table):
            raise InputError(
                f"the pretrained position table has {len(table)} rows and cannot be cut to "
                f"model.text.max_position_embeddings "
                f"{length}; {ways}interpolate"
            )
        return chosen | {path: table[:length]}, [f"positions cut from {len(table)} to {length}"]
    first = text.first_position  # rows before it are of no position
    places = np.linspace(0, len(table) - first - 1, length - first)
    rows = np.arange(len(table) - first)
    stretched = np.stack([np.interp(places, rows, column) for column in table[first:].T], axis=1)
    stretched = np.concatenate([table[:first], stretched.astype(np.float32)])
    return chosen | {path: stretched}, [f"positions interpolated from {len(table)} to {length}"]


def _image_side(
    config: Config, source: Pretrained, answers: tuple[str, ...], fresh: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], list[str]]:
    name, model = config.model.image.init_from, config.model
    if source.image is None or source.input is None:
        raise InputError(f"model.image.init_from {name} has no CNN; give it as model.text.init_from")
    settings, source_settings = leaves(model.image), leaves(source.image)
    shaping = ("cnn", "norm", "patch_size", "stem_width", "stem_stride", "widths", "blocks")
    relevant = shaping if source.image.cnn == "small" else ("cnn", "norm")
    wrong = {
        f"image.{setting}": source_settings[setting]
        for setting in relevant
        if settings[setting] != source_settings[setting]
    }
    if wrong:
        raise InputError(f"model.image.init_from {name} needs {_options(wrong)}")
    for setting in ("mean", "std"):
        value = getattr(source.input, setting)
        if not np.allclose(getattr(config.data.image, setting), value, atol=1e-4):
            shown = " ".join(f"{x:.6g}" for x in value)
            raise InputError(f"model.image.init_from {name} was trained with --data.image.{setting} {shown}; give it")
    recipe = {setting: getattr(source.input, setting) for setting in ("size", "resize", "short_side", "resample")}
    other = {setting: value for setting, value in recipe.items() if getattr(config.data.image, setting) != value}
    notes = [f"trained on images with {_image_options(other)}, which this run has not"] if other else []
    return {path: leaf for path, leaf in source.leaves.items() if path.startswith("image/")}, notes


def _whole_model(
    config: Config, source: Pretrained, answers: tuple[str, ...], fresh: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], list[str]]:
    name, model = config.model.init_from, config.model
    if source.model is None or source.family not in ("run", "visual_bert"):
        raise InputError(f"model.init_from {name} is no whole model; it can start model.text or model.image")
    wanted = {setting: getattr(source.model, setting) for setting in (*TRUNK_SETTINGS, "fusion")}
    wanted |= {f"text.{setting}": getattr(source.model.text, setting) for setting in TEXT_SETTINGS}
    image_settings = ("positions", "max_position_embeddings", "modality_type_vocab_size", "projection")
    wanted |= {f"image.{setting}": getattr(source.model.image, setting) for setting in image_settings}
    wrong = {setting: value for setting, value in wanted.items() if _setting(model, setting) != value}
    if wrong:
        raise InputError(f"model.init_from {name} needs {_options(wrong)}")
    chosen = {}
    for path, leaf in source.leaves.items():
        target_path = specific(path.replace("head/answers/classifier", "head/classifier"), model)
        if target_path.startswith("head/classifier") and source.answers != answers:
            continue  # its classes mean other answers
        if target_path in fresh:
            chosen[target_path] = leaf
    return _with_positions(config, chosen)


def _setting(model: Model, name: str) -> Any:
    group, _, inner = name.rpartition(".")
    return getattr(getattr(model, group) if group else model, inner)


def _image_options(settings: Mapping[str, Any]) -> str:
    """Settings of `data.image` as options of a command."""
    return " ".join(
        f"--data.image.{name.replace('_', '-')} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in settings.items()
    )


def _options(settings: Mapping[str, Any]) -> str:
    """Settings as options of a command."""
    shown = []
    for name, value in settings.items():
        words = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        shown.append(f"--model.{name.replace('_', '-')} {words}")
    return " ".join(shown)
