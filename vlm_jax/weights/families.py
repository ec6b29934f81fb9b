"""The families that can be ported, and their classes."""

from vlm_jax.weights.bert import BERT, ROBERTA
from vlm_jax.weights.distilbert import DISTILBERT
from vlm_jax.weights.family import Family
from vlm_jax.weights.mobile_networks import EFFICIENTNET_LITE0, TORCHVISION_MOBILENET
from vlm_jax.weights.resnet import RESNET, TORCHVISION_RESNET
from vlm_jax.weights.visual_bert import VISUAL_BERT

_ALL = (
    BERT, ROBERTA, DISTILBERT, VISUAL_BERT, RESNET, TORCHVISION_RESNET, TORCHVISION_MOBILENET, EFFICIENTNET_LITE0,
)  # fmt: skip
FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}
CLASSES: dict[str, Family] = {name: family for family in _ALL for name in family.classes}
