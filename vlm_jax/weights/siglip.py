"""SigLIP (Zhai et al. 2023), both sides in one model."""

from vlm_jax.config.dual_encoder import DualEncoder, TextTower
from vlm_jax.errors import InputError
from vlm_jax.types import Json
from vlm_jax.weights.clip import (
    TEXT_CONFIG,
    VISION_CONFIG,
    clip_text_config,
    clip_text_layers,
    clip_text_rows,
)
from vlm_jax.weights.clip_vision import POOLER, siglip_image_config, siglip_image_rows, siglip_image_settings
from vlm_jax.weights.dual_encoder import DUAL_ENCODER, IMAGE, TEXT, image_side
from vlm_jax.weights.family import ConvertedArchitecture, Family, PublishedClass, PublishedFile, choice, number
from vlm_jax.weights.image_text import side_config, within
from vlm_jax.weights.tables import Row, linear, with_axes

TEXT_DEFAULTS = {
    "hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072,
    "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "vocab_size": 32000, "max_position_embeddings": 64,
}  # fmt: skip


def _settings(file: PublishedFile) -> ConvertedArchitecture:
    config, image = side_config(file, TEXT_CONFIG), siglip_image_settings(file._replace(parts=POOLER))
    choice(side_config(file, VISION_CONFIG), "vision_use_head", True, (True,))
    layers = clip_text_layers(config, TEXT_DEFAULTS, pattern="bidirectional")
    size = layers.hidden_size if config.get("projection_size") is None else number(config, "projection_size")
    if size != image.model.hidden_size:
        raise InputError(
            f"config.json says that vectors of texts have {size} numbers (projection_size of {TEXT_CONFIG}), and those "
            f"of images {image.model.hidden_size} (hidden_size of {VISION_CONFIG}); expected the same size"
        )
    text = TextTower(
        layers=layers,
        embedding_norm=False,
        final_norm=True,
        pooling="last_token",
        attends_to_padding=True,
        projection_bias=True,
    )
    model = DualEncoder(
        image=image.model,
        text=text,
        image_head="attention_pooler",
        projection_size=size,
        logit_bias=True,
        probability="sigmoid",
    )
    return ConvertedArchitecture(model, input=image.input)


def _rows(architecture: ConvertedArchitecture) -> list[Row]:
    rows = within(siglip_image_rows(image_side(architecture)), "vision_model", IMAGE)
    text = clip_text_rows(architecture.model.text.layers) + linear("head", "projection")
    numbers = [Row((name,), (name,), with_axes(1)) for name in ("logit_scale", "logit_bias")]
    return rows + within(text, "text_model", TEXT) + numbers


def _config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    model = architecture.model
    text = clip_text_config(model.text.layers) | {"projection_size": model.projection_size}
    return {TEXT_CONFIG: text, VISION_CONFIG: siglip_image_config(image_side(architecture))}


SIGLIP = Family(
    name="siglip",
    prefix="",
    recognise=("text_model.embeddings.token_embedding.weight", "vision_model.head.probe", "logit_bias"),
    trunk_names=("text_model.", "vision_model.", "logit_scale", "logit_bias"),
    classes={"SiglipModel": PublishedClass(alone=True, pipeline="zero-shot-image-classification")},
    heads={},
    settings=_settings,
    rows=_rows,
    config=_config,
    sides=(TEXT_CONFIG, VISION_CONFIG),
    kind=DUAL_ENCODER,
)
