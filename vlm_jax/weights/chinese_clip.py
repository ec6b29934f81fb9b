"""ChineseCLIP (Yang et al. 2022): the image side of CLIP beside a Chinese BERT, whose [CLS] is projected."""

from vlm_jax.config.dual_encoder import DualEncoder, TextTower
from vlm_jax.types import Json
from vlm_jax.weights.bert import KEYS, LAYER, LAYERS, bert_architecture
from vlm_jax.weights.bert_tables import encoder
from vlm_jax.weights.clip import TEXT_CONFIG, VISION_CONFIG, text_config_of
from vlm_jax.weights.clip_vision import clip_image_config, clip_image_rows, clip_image_settings
from vlm_jax.weights.dual_encoder import DUAL_ENCODER, IMAGE, TEXT, image_side
from vlm_jax.weights.family import ConvertedArchitecture, Family, PublishedClass, PublishedFile
from vlm_jax.weights.image_text import within
from vlm_jax.weights.tables import SAME, Row, linear

BERT_DEFAULTS = {
    "hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072,
    "hidden_act": "gelu", "layer_norm_eps": 1e-12, "vocab_size": 30522, "max_position_embeddings": 512,
    "type_vocab_size": 2,
}  # fmt: skip
"""Of ChineseCLIPTextConfig and AlignTextConfig."""


def _settings(file: PublishedFile) -> ConvertedArchitecture:
    image = clip_image_settings(file._replace(parts=("projection",)))
    text = TextTower(layers=bert_architecture({**BERT_DEFAULTS, **text_config_of(file)}))
    model = DualEncoder(image=image.model, text=text, projection_size=image.projection_size)
    return ConvertedArchitecture(model, input=image.input)


def _rows(architecture: ConvertedArchitecture) -> list[Row]:
    rows = within(clip_image_rows(image_side(architecture)), "vision_model", IMAGE, outside=("visual_projection",))
    rows += within(encoder(architecture.model.text.layers, LAYERS, LAYER), "text_model", TEXT)
    rows += linear("text_projection", f"{TEXT}/projection", bias=False)
    return [*rows, Row(("logit_scale",), ("logit_scale",), SAME)]


def _config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    model = architecture.model
    text = {key: getattr(model.text.layers, setting) for setting, key in KEYS.items()}
    image = clip_image_config(image_side(architecture))
    return {TEXT_CONFIG: text, VISION_CONFIG: image, "projection_dim": model.projection_size}


CHINESE_CLIP = Family(
    name="chinese_clip",
    prefix="",
    recognise=("text_model.embeddings.word_embeddings.weight", "vision_model.pre_layrnorm.weight", "logit_scale"),
    trunk_names=("text_model.", "vision_model.", "text_projection.", "visual_projection.", "logit_scale"),
    classes={"ChineseCLIPModel": PublishedClass(alone=True, pipeline="zero-shot-image-classification")},
    heads={},
    settings=_settings,
    rows=_rows,
    config=_config,
    sides=(TEXT_CONFIG, VISION_CONFIG),
    kind=DUAL_ENCODER,
)
