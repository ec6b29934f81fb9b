"""The families that can be ported, and their classes."""

from vlm_jax.weights.bert import BERT, ROBERTA
from vlm_jax.weights.clip_vision import CLIP_VISION, SIGLIP_VISION
from vlm_jax.weights.cnn import EFFICIENTNET_LITE0, RESNET, TORCHVISION_MOBILENET, TORCHVISION_RESNET
from vlm_jax.weights.distilbert import DISTILBERT
from vlm_jax.weights.family import Family
from vlm_jax.weights.visual_bert import VISUAL_BERT
from vlm_jax.weights.vit import DEIT, DINOV2, VIT

_ALL = (
    BERT, ROBERTA, DISTILBERT, VISUAL_BERT, RESNET, TORCHVISION_RESNET, TORCHVISION_MOBILENET, EFFICIENTNET_LITE0,
    VIT, DEIT, DINOV2, CLIP_VISION, SIGLIP_VISION,
)  # fmt: skip
FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}
MODEL_TYPES: dict[str, Family] = {kind: family for family in _ALL for kind in (family.name, *family.model_types)}
"""The family of each `model_type` of a config.json."""
CLASSES: dict[str, Family] = {name: family for family in _ALL for name in family.classes}
