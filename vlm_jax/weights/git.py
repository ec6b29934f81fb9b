"""GIT (Wang et al. 2022): captions and answers by one transformer over an image's tokens and a text.

Names are those of transformers' modeling_git.py, defaults those of its configuration_git.py.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vlm_jax.config.encoders import VisionTransformer
from vlm_jax.config.git import Git
from vlm_jax.errors import InputError
from vlm_jax.models.git import PretrainedGit
from vlm_jax.models.pretrained import Part
from vlm_jax.settings.changes import with_changes
from vlm_jax.types import Json, Parameters
from vlm_jax.weights import bert_tables
from vlm_jax.weights.bert import KEYS, LAYER, LAYERS
from vlm_jax.weights.clip_vision import CLIP_NAMES
from vlm_jax.weights.dropout import DropoutNames, trunk_dropout
from vlm_jax.weights.family import (
    ConvertedArchitecture,
    Family,
    Inputs,
    ModelKind,
    Outputs,
    PublishedClass,
    PublishedFile,
    choice,
    real,
)
from vlm_jax.weights.image_text import hidden_states, padded_with_nan, run_recorded, side_config
from vlm_jax.weights.tables import SAME, Row, linear, norm
from vlm_jax.weights.vit_tables import CLIP, cut_out, encoder_config, encoder_rows, encoder_settings

VISION = "vision_config"
IMAGE_ENCODER = "image_encoder.vision_model"
PROJECTION = "visual_projection.visual_projection"
DEFAULTS = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 6, "num_attention_heads": 12,
    "intermediate_size": 3072, "max_position_embeddings": 1024,
}  # fmt: skip
GIT_KEYS = {setting: key for setting, key in KEYS.items() if setting != "type_vocab_size"}
HEADS: dict[Part, tuple[str, ...]] = {"words": ("output.bias",), "decoder": ("output.weight",)}
TOKENS = 12  # of the longest example text


def _settings(file: PublishedFile) -> ConvertedArchitecture:
    config = DEFAULTS | file.config
    if (frames := config.get("num_image_with_embedding")) is not None:
        raise InputError(
            f"config.json says num_image_with_embedding = {frames!r}, which is not supported: a GIT of videos adds an "
            "embedding to each frame; expected null"
        )
    choice(config, "position_embedding_type", "absolute", ("absolute",))
    image, epsilon = _image_settings(side_config(file, VISION)), real(config, "layer_norm_eps", 1e-12)
    trunk = bert_tables.encoder_architecture(config, KEYS, layer_norm_eps=epsilon, type_vocab_size=0)
    trunk = trunk_dropout(trunk, config, DropoutNames())
    trunk = with_changes(trunk, {"image": image, "attention_pattern": "prefix", "head": "lm"})
    pixels = cut_out(image.image_size, max(image.image_size), CLIP)
    return ConvertedArchitecture(Git(trunk=trunk), file.parts, input=pixels, pad_id=bert_tables.pad_id(config, 0))


def _image_settings(config: Mapping[str, Json]) -> VisionTransformer:
    """CLIP's image transformer, whose last layer norm here is of every token."""
    if rate := config.get("attention_dropout"):
        raise InputError(
            f"config.json says attention_dropout = {rate!r} in {VISION}, which is not supported; expected 0"
        )
    defaults = {"patch_size": 16, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    return encoder_settings(config, **defaults, patch_bias=False, embedding_norm=True)


def _rows(architecture: ConvertedArchitecture) -> list[Row]:
    trunk, parts = architecture.model.trunk, architecture.parts
    rows = bert_tables.encoder(trunk, LAYERS, LAYER)
    for row in encoder_rows(trunk.image, CLIP_NAMES):
        rows.append(Row(tuple(f"{IMAGE_ENCODER}.{name}" for name in row.source), row.target, row.transform))
    rows += linear(f"{PROJECTION}.0", "embed/image_fc") + norm(f"{PROJECTION}.1", "embed/image_norm")
    if "words" in parts:
        rows.append(Row(HEADS["words"], ("head/bias",), SAME))
    return rows + (linear("output", "head/decoder", bias=False) if "decoder" in parts else [])


def _config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    trunk = architecture.model.trunk
    settings = {key: getattr(trunk, setting) for setting, key in GIT_KEYS.items()}
    tied = "words" in architecture.parts and "decoder" not in architecture.parts
    return settings | {VISION: encoder_config(trunk.image), "tie_word_embeddings": tied}


def _module(architecture: ConvertedArchitecture, dtype: str) -> PretrainedGit:
    trunk = with_changes(architecture.model.trunk, {"dtype": dtype})
    return PretrainedGit(trunk, parts=architecture.parts, pad_id=architecture.pad_id)


def _inputs(architecture: ConvertedArchitecture) -> Inputs:
    """Two images, and texts of two lengths."""
    trunk, random = architecture.model.trunk, np.random.default_rng(0)
    length = min(TOKENS, trunk.max_position_embeddings)
    mask = np.arange(length)[None] < np.array([length, max(1, length // 2)])[:, None]
    ids = np.where(mask, random.integers(0, trunk.vocab_size, mask.shape), architecture.pad_id or 0)
    image = random.normal(size=(len(mask), *trunk.image.image_size, 3))
    return {"image": image.astype(np.float32), "input_ids": ids.astype(np.int32), "text_mask": mask}


def _outputs(module: PretrainedGit, params: Parameters, inputs: Inputs) -> Outputs:
    """The image transformer's layers and last states, then layers over image and text, and the logits at the text."""
    output, captured = jax.device_get(run_recorded(module, ("embed", "norm"), params, inputs))
    trunk = module.settings
    image = hidden_states(captured["image"], trunk.image.num_layers, "image")
    image["image last state"] = captured["image"]["norm"]["__call__"][0]
    states = {"embeddings": captured["embed"]["__call__"][0]}
    for index in range(trunk.num_layers):
        states[f"layer {index + 1}"] = [x for x, _ in captured["trunk"][f"layer_{index}"]["__call__"]]
    states = {name: np.concatenate(streams, axis=2)[:, 0] for name, streams in states.items()}
    return image | shown_alone(states, output.logits, inputs["text_mask"])


def shown_alone(states: Outputs, logits: np.ndarray | None, text_mask: np.ndarray) -> Outputs:
    """States [B, G + T, D] and logits [B, T, V] with NaN where the text is padded."""
    shown = {}
    for name, x in states.items():
        image = np.ones((len(x), x.shape[1] - text_mask.shape[1]), bool)
        shown[name] = padded_with_nan(x, np.concatenate([image, text_mask], axis=1))
    return shown if logits is None else shown | {"logits": padded_with_nan(logits, text_mask)}


def _references(model: Any, inputs: Inputs) -> Outputs:
    from vlm_jax.weights.git_oracle import git_references

    return git_references(model, inputs)


def _image_side(architecture: ConvertedArchitecture, params: Parameters) -> tuple[ConvertedArchitecture, Parameters]:
    """The image transformer alone."""
    image = architecture.model.trunk.image
    return ConvertedArchitecture(image, input=architecture.input), {"image": params["image"]}


GIT = Family(
    name="git",
    prefix="git",
    recognise=("visual_projection.visual_projection.0.weight", "image_encoder.vision_model.pre_layrnorm.weight"),
    trunk_names=("embeddings.", "encoder.", "image_encoder.", "visual_projection."),
    classes={
        "GitModel": PublishedClass(alone=True),
        "GitForCausalLM": PublishedClass(("words",), alone=True, pipeline="image-to-text"),
    },
    heads=HEADS,
    settings=_settings,
    rows=_rows,
    config=_config,
    tied=("output.weight", "embeddings.word_embeddings.weight"),
    outside=("output.",),
    sides=(VISION,),
    kind=ModelKind(Git, _module, _inputs, _outputs, _references, _image_side),
)
