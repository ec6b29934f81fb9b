"""ALIGN (Jia et al. 2021): an EfficientNet, whose grid is pooled, beside a BERT, whose [CLS] is projected."""

from vlm_jax.config.dual_encoder import DualEncoder, TextTower
from vlm_jax.data.image_settings import ImageInput, StretchCrop
from vlm_jax.errors import InputError
from vlm_jax.models.mobile_networks import layout_of
from vlm_jax.types import Json
from vlm_jax.weights.bert import KEYS, LAYER, LAYERS, bert_architecture
from vlm_jax.weights.bert_tables import encoder
from vlm_jax.weights.chinese_clip import BERT_DEFAULTS
from vlm_jax.weights.clip import TEXT_CONFIG, VISION_CONFIG
from vlm_jax.weights.dual_encoder import DUAL_ENCODER, IMAGE, TEXT, image_side
from vlm_jax.weights.efficientnet import (
    batch_norm_epsilon,
    efficientnet_config,
    efficientnet_rows,
    efficientnet_settings,
)
from vlm_jax.weights.family import ConvertedArchitecture, Family, PublishedClass, PublishedFile, choice, number
from vlm_jax.weights.image_text import side_config, within
from vlm_jax.weights.tables import SAME, Row, linear
from vlm_jax.weights.vit_tables import HALF, MOST_PIXELS

# preprocessor_config.json of kakaobrain/align-base; the 600 pixels of its config.json are EfficientNet-B7's.
PUBLISHED_INPUT = ImageInput(
    size=(289, 289), resize=StretchCrop(scaled_size=(346, 346), resample="bilinear"), **HALF
)  # fmt: skip
POOLINGS = ("mean", "max")
LARGEST_GRID = -(-MOST_PIXELS // 32)


def _settings(file: PublishedFile) -> ConvertedArchitecture:
    config = side_config(file, VISION_CONFIG)
    cnn = efficientnet_settings(config, top_convolution=False)
    number(config, "hidden_dim", 2560, least=LARGEST_GRID)  # the side of the pooling window, which covers any grid
    size, width = number(file.config, "projection_dim", 640), layout_of(cnn).blocks[-1].width
    if size != width:
        raise InputError(
            f"config.json says projection_dim = {size}; its width_coefficient {cnn.width_coefficient:g} makes vectors "
            f"of images of {width} numbers"
        )
    layers = bert_architecture({**BERT_DEFAULTS, **side_config(file, TEXT_CONFIG)})
    model = DualEncoder(
        image=cnn,
        text=TextTower(layers=layers, projection_bias=True),
        image_head=choice(config, "pooling_type", "mean", POOLINGS),
        projection_size=size,
        scale="temperature",
    )
    return ConvertedArchitecture(model, input=PUBLISHED_INPUT, batch_norm_eps=batch_norm_epsilon(config))


def _rows(architecture: ConvertedArchitecture) -> list[Row]:
    rows = within(efficientnet_rows(image_side(architecture)), "vision_model", IMAGE)
    rows += within(encoder(architecture.model.text.layers, LAYERS, LAYER), "text_model", TEXT)
    rows += linear("text_projection", f"{TEXT}/projection")
    return [*rows, Row(("temperature",), ("temperature",), SAME)]


def _config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    model = architecture.model
    text = {key: getattr(model.text.layers, setting) for setting, key in KEYS.items()}
    image = efficientnet_config(model.image, batch_norm_eps=architecture.batch_norm_eps)
    image |= {"pooling_type": model.image_head}
    return {TEXT_CONFIG: text, VISION_CONFIG: image, "projection_dim": model.projection_size}


ALIGN = Family(
    name="align",
    prefix="",
    recognise=(
        "text_model.embeddings.word_embeddings.weight",
        "vision_model.embeddings.batchnorm.weight",
        "temperature",
    ),
    trunk_names=("text_model.", "vision_model.", "text_projection.", "temperature"),
    classes={"AlignModel": PublishedClass(alone=True, pipeline="zero-shot-image-classification")},
    heads={},
    settings=_settings,
    rows=_rows,
    config=_config,
    sides=(TEXT_CONFIG, VISION_CONFIG),
    kind=DUAL_ENCODER,
    unread=(".num_batches_tracked", "text_model.pooler.dense.weight", "text_model.pooler.dense.bias"),
)
