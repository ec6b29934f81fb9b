"""MobileNetV2 and EfficientNet-Lite0: the names of transformers' files, of torchvision's and of efficientnet-lite's."""

from vlm_jax.config.encoders import EfficientNetLite0, MobileNetV2
from vlm_jax.data.image_settings import CenterCrop, ImageInput
from vlm_jax.models.mobile_networks import layout_of
from vlm_jax.weights.cnn import (
    CLASSIFIER,
    TORCHVISION,
    classifier_rows,
    frozen_cnn,
    inverted_residual_rows,
    torch_family,
)
from vlm_jax.weights.family import ConvertedArchitecture, PublishedClass
from vlm_jax.weights.tables import Row

LITE_EPSILON = 1e-3  # EfficientNet's batch norms
# TensorFlow's EfficientNet-Lite: CROP_PADDING 32, so that 224 of 256 are cut out; bicubic; (x - 127) / 128.
LITE = ImageInput(size=(224, 224), resize=CenterCrop(short_side=256), mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


def _torchvision_rows(architecture: ConvertedArchitecture) -> list[Row]:
    blocks = []
    for index, block in enumerate(layout_of(architecture.model).blocks, start=1):
        source, first = f"features.{index}.conv", int(block.expands)
        units = [(f"{source}.{number}.0", f"{source}.{number}.1") for number in range(first + 1)]
        blocks.append([*units, (f"{source}.{first + 1}", f"{source}.{first + 2}")])
    last = f"features.{len(blocks) + 1}"
    rows = inverted_residual_rows(architecture, ("features.0.0", "features.0.1"), blocks, (f"{last}.0", f"{last}.1"))
    return rows + classifier_rows(architecture, "classifier.1")


TORCHVISION_MOBILENET = torch_family(
    "torchvision_mobilenet_v2",
    classifier="classifier.1",
    recognise=("features.1.conv.0.0.weight",),
    trunk_names=("features.",),
    classes={"mobilenet_v2": PublishedClass(CLASSIFIER, alone=True)},
    settings=lambda file: frozen_cnn(file, MobileNetV2(), "classifier.1", TORCHVISION),
    rows=_torchvision_rows,
)


def _lite_rows(architecture: ConvertedArchitecture) -> list[Row]:
    blocks = []
    for index, block in enumerate(layout_of(architecture.model).blocks):
        names = [("_expand_conv", "_bn0")] * block.expands + [("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        blocks.append([(f"_blocks.{index}.{conv}", f"_blocks.{index}.{norm}") for conv, norm in names])
    rows = inverted_residual_rows(architecture, ("_conv_stem", "_bn0"), blocks, ("_conv_head", "_bn1"))
    return rows + classifier_rows(architecture, "_fc")


EFFICIENTNET_LITE0 = torch_family(
    "efficientnet_lite0",
    classifier="_fc",
    recognise=("_conv_stem.weight",),
    trunk_names=("_conv_", "_bn", "_blocks."),
    classes={"efficientnet_lite0": PublishedClass(CLASSIFIER, alone=True)},
    settings=lambda file: frozen_cnn(file, EfficientNetLite0(), "_fc", LITE, batch_norm_eps=LITE_EPSILON),
    rows=_lite_rows,
)
