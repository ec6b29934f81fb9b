"""CLIP (Radford et al. 2021), both sides in one model."""

from collections.abc import Mapping

from vlm_jax.config.architecture import Architecture, AttentionPattern
from vlm_jax.config.dual_encoder import DualEncoder, TextTower
from vlm_jax.config.encoders import Features
from vlm_jax.errors import InputError
from vlm_jax.types import Json
from vlm_jax.weights.bert_tables import MOST_LAYERS, layer
from vlm_jax.weights.clip_vision import LAYER, clip_image_config, clip_image_rows, clip_image_settings
from vlm_jax.weights.dual_encoder import DUAL_ENCODER, IMAGE, TEXT, image_side
from vlm_jax.weights.family import ConvertedArchitecture, Family, PublishedClass, PublishedFile, choice, number, real
from vlm_jax.weights.image_text import side_config, within
from vlm_jax.weights.tables import SAME, Row, linear, norm, table
from vlm_jax.weights.vit_tables import ACTIVATIONS

TEXT_CONFIG, VISION_CONFIG = "text_config", "vision_config"
TEXT_DEFAULTS = {
    "hidden_size": 512, "num_attention_heads": 8, "num_hidden_layers": 12, "intermediate_size": 2048,
    "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "vocab_size": 49408, "max_position_embeddings": 77,
}  # fmt: skip
FIRST_END_ID = 2
"""`eos_token_id` of CLIP's first config.json, which is no token of its texts (modeling_clip.py)."""


def text_config_of(file: PublishedFile) -> Mapping[str, Json]:
    """The settings of the text side; those of old files under `text_config_dict` come first, as in transformers."""
    return side_config(file, f"{TEXT_CONFIG}_dict", TEXT_CONFIG)


def clip_text_layers(
    config: Mapping[str, Json], defaults: Mapping[str, Json], *, pattern: AttentionPattern
) -> Architecture:
    """Tables and layers of the text side that a config describes; `defaults` are those of its class."""
    config = {**defaults, **config}
    width, heads = number(config, "hidden_size"), number(config, "num_attention_heads")
    if width % heads:
        raise InputError(f"config.json says num_attention_heads = {heads}, no divisor of the width {width}")
    return Architecture(
        fusion="concat",
        attention_pattern=pattern,
        head="cls",
        pre_norm=True,
        hidden_size=width,
        num_attention_heads=heads,
        num_layers=number(config, "num_hidden_layers", most=MOST_LAYERS),
        intermediate_size=number(config, "intermediate_size"),
        hidden_act=ACTIVATIONS[choice(config, "hidden_act", "", ACTIVATIONS)],
        layer_norm_eps=real(config, "layer_norm_eps", 0.0),
        image=Features(),
        vocab_size=number(config, "vocab_size"),
        text_feature_size=width,
        max_position_embeddings=number(config, "max_position_embeddings"),
        type_vocab_size=0,
    )


def clip_text_rows(model: Architecture) -> list[Row]:
    """The text side without its projection."""
    rows = table("embeddings.token_embedding", "text/word") + table("embeddings.position_embedding", "text/position")
    for index in range(model.num_layers):
        rows += layer(f"encoder.layers.{index}", f"trunk/layer_{index}", LAYER)
    return rows + norm("final_layer_norm", "final_norm")


def clip_text_config(model: Architecture) -> dict[str, Json]:
    """The settings of the text side in an export: the inverse of `clip_text_layers`."""
    activations = {ours: name for name, ours in reversed(ACTIVATIONS.items())}
    return {
        "hidden_size": model.hidden_size,
        "num_attention_heads": model.num_attention_heads,
        "num_hidden_layers": model.num_layers,
        "intermediate_size": model.intermediate_size,
        "hidden_act": activations[model.hidden_act],
        "layer_norm_eps": model.layer_norm_eps,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.max_position_embeddings,
    }


def _settings(file: PublishedFile) -> ConvertedArchitecture:
    config, image = text_config_of(file), clip_image_settings(file._replace(parts=("projection",)))
    end = number(config, "eos_token_id", 49407, least=0)
    layers = clip_text_layers(config, TEXT_DEFAULTS, pattern="causal")
    text = TextTower(
        layers=layers,
        embedding_norm=False,
        final_norm=True,
        pooling="end_token",
        end_id=None if end == FIRST_END_ID else end,
    )
    model = DualEncoder(image=image.model, text=text, projection_size=image.projection_size)
    return ConvertedArchitecture(model, input=image.input)


def _rows(architecture: ConvertedArchitecture) -> list[Row]:
    model = architecture.model
    rows = within(clip_image_rows(image_side(architecture)), "vision_model", IMAGE, outside=("visual_projection",))
    rows += within(clip_text_rows(model.text.layers), "text_model", TEXT)
    rows += linear("text_projection", f"{TEXT}/projection", bias=False)
    return [*rows, Row(("logit_scale",), ("logit_scale",), SAME)]


def _config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    model = architecture.model
    size = {"projection_dim": model.projection_size}
    end = FIRST_END_ID if model.text.end_id is None else model.text.end_id
    text = clip_text_config(model.text.layers) | {"eos_token_id": end}
    return {TEXT_CONFIG: text | size, VISION_CONFIG: clip_image_config(image_side(architecture))} | size


CLIP = Family(
    name="clip",
    prefix="",
    recognise=("text_model.embeddings.token_embedding.weight", "vision_model.pre_layrnorm.weight", "logit_scale"),
    trunk_names=("text_model.", "vision_model.", "text_projection.", "visual_projection.", "logit_scale"),
    classes={"CLIPModel": PublishedClass(alone=True, pipeline="zero-shot-image-classification")},
    heads={},
    settings=_settings,
    rows=_rows,
    config=_config,
    sides=(TEXT_CONFIG, VISION_CONFIG),
    kind=DUAL_ENCODER,
)
