"""The families that can be ported, and their classes."""

from vlm_jax.config.image_text import ImageTextModel
from vlm_jax.weights.albert import ALBERT
from vlm_jax.weights.align import ALIGN
from vlm_jax.weights.bert import BERT, ERNIE
from vlm_jax.weights.blip import BLIP
from vlm_jax.weights.chinese_clip import CHINESE_CLIP
from vlm_jax.weights.clip import CLIP
from vlm_jax.weights.clip_vision import CLIP_VISION, SIGLIP_VISION
from vlm_jax.weights.convnext import CONVNEXT
from vlm_jax.weights.distilbert import DISTILBERT
from vlm_jax.weights.efficientnet import EFFICIENTNET_FAMILY
from vlm_jax.weights.electra import ELECTRA
from vlm_jax.weights.family import Family, ModelKind
from vlm_jax.weights.git import GIT
from vlm_jax.weights.mobile_networks import EFFICIENTNET_LITE0, MOBILENET, TORCHVISION_MOBILENET
from vlm_jax.weights.mpnet import MPNET
from vlm_jax.weights.resnet import RESNET, TORCHVISION_RESNET
from vlm_jax.weights.roberta import CAMEMBERT, DATA2VEC_TEXT, ROBERTA, XLM_ROBERTA
from vlm_jax.weights.siglip import SIGLIP
from vlm_jax.weights.visual_bert import VISUAL_BERT
from vlm_jax.weights.vit import DEIT, DINOV2, VIT

_ALL = (
    BERT, ROBERTA, DISTILBERT, VISUAL_BERT, XLM_ROBERTA, CAMEMBERT, MPNET, ELECTRA, ALBERT, ERNIE, DATA2VEC_TEXT,
    RESNET, TORCHVISION_RESNET, MOBILENET, TORCHVISION_MOBILENET, EFFICIENTNET_FAMILY, EFFICIENTNET_LITE0, CONVNEXT,
    VIT, DEIT, DINOV2, CLIP_VISION, SIGLIP_VISION, CLIP, SIGLIP, CHINESE_CLIP, ALIGN, BLIP, GIT,
)  # fmt: skip
FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}
MODEL_TYPES: dict[str, tuple[Family, ...]] = {
    name: tuple(family for family in _ALL if name in (family.name, *family.model_types))
    for name in (name for family in _ALL for name in (family.name, *family.model_types))
}
"""The families of each `model_type` of a config.json: whole models and their image sides have the same."""
CLASSES: dict[str, Family] = {name: family for family in _ALL for name in family.classes}
KINDS: dict[type[ImageTextModel], ModelKind] = {family.kind.settings: family.kind for family in _ALL if family.kind}
"""The kinds of models of images and texts by the class of their settings."""
