"""ResNet, MobileNetV2 and EfficientNet-Lite0 with their ImageNet classifiers: the names of published files.

ResNets come under transformers' names and under torchvision's; both are version 1.5. Batch norms are folded.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from vlm_jax.config.encoders import EfficientNetLite0, MobileNetV2, PublishedCNN, ResNet
from vlm_jax.data.image_settings import CenterCrop, ImageInput
from vlm_jax.errors import InputError
from vlm_jax.models.inverted_residual import INVERTED_RESIDUALS
from vlm_jax.models.pretrained import Part
from vlm_jax.models.resnet import RESNETS, BasicBlock
from vlm_jax.weights.family import ConvertedArchitecture, Family, Names, PublishedClass
from vlm_jax.weights.preprocessor import with_timm
from vlm_jax.weights.source import Tensors
from vlm_jax.weights.tables import Row, convolution_norm, linear, source_names

TORCH_EPSILON = 1e-5  # torch.nn.BatchNorm2d
LITE_EPSILON = 1e-3  # EfficientNet's batch norms
# torchvision's presets.ImageClassification: Resize(256), CenterCrop(224), bilinear.
IMAGENET_COLOURS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
TORCHVISION = ImageInput(size=(224, 224), resize=CenterCrop(short_side=256, resample="bilinear"), **IMAGENET_COLOURS)
# preprocessor_config.json of microsoft/resnet-18 to -101: crop_pct 0.875, bicubic.
IMAGENET = ImageInput(size=(224, 224), resize=CenterCrop(short_side=256), **IMAGENET_COLOURS)
# TensorFlow's EfficientNet-Lite: CROP_PADDING 32, so that 224 of 256 are cut out; bicubic; (x - 127) / 128.
LITE = ImageInput(size=(224, 224), resize=CenterCrop(short_side=256), mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


PUBLISHED: dict[str, PublishedCNN] = {
    **{f"resnet{depth}": ResNet(depth=depth, norm="frozen") for depth in (18, 34, 50, 101)},
    "mobilenet_v2": MobileNetV2(norm="frozen"),
    "efficientnet_lite0": EfficientNetLite0(norm="frozen"),
}
Parts = tuple[Part, ...]
CLASSIFIER: Parts = ("classifier",)


def _classifier(architecture: ConvertedArchitecture, source: str) -> list[Row]:
    return linear(source, "head/classifier") if architecture.classes else []


def _frozen(
    cnn: str, names: Names, tensors: Tensors, parts: Parts, classifier: str, image: ImageInput
) -> ConvertedArchitecture:
    """`classifier` is the name of the layer whose rows are the classes."""
    shape = tensors[names[f"{classifier}.weight"]].shape if parts else ()
    return ConvertedArchitecture(PUBLISHED[cnn], (), shape[0] if shape else 0, image)


def _heads(classifier: str) -> dict[Part, tuple[str, ...]]:
    return {"classifier": source_names(linear(classifier, ""))}


# ResNet


def _blocks(cnn: str) -> Iterator[tuple[int, int, str]]:
    for stage, depth in enumerate(RESNETS[cnn][1]):
        for block in range(depth):
            yield stage, block, f"image/stage_{stage + 1}_block_{block}"


def _convolutions(cnn: str) -> int:
    return 2 if RESNETS[cnn][0] is BasicBlock else 3


def _has_shortcut(cnn: str, stage: int, block: int) -> bool:
    """The first block of a stage changes the shape, but for the first stage of basic blocks."""
    return block == 0 and (stage > 0 or _convolutions(cnn) == 3)


def _resnet_of(depths: tuple[int, ...], convolutions: int) -> str:
    for cnn, (_, known) in RESNETS.items():
        if known == depths and _convolutions(cnn) == convolutions:
            return cnn
    kind = "basic" if convolutions == 2 else "bottleneck"
    raise InputError(f"a ResNet of {kind} blocks {list(depths)} cannot be ported; choose one of: {', '.join(RESNETS)}")


def _torchvision_resnet_settings(
    config: Mapping[str, Any], names: Names, tensors: Tensors, named: str, parts: Parts
) -> ConvertedArchitecture:
    counts = [
        sum(name.startswith(f"layer{stage}.") and name.endswith(".conv1.weight") for name in names)
        for stage in range(1, 5)
    ]
    cnn = _resnet_of(tuple(counts), 3 if "layer1.0.conv3.weight" in names else 2)
    if cnn != named:
        raise InputError(f"the file is said to hold a {named!r}, and its tensors are those of a {cnn!r}")
    return _frozen(cnn, names, tensors, parts, "fc", with_timm(TORCHVISION, config))


def _torchvision_resnet_rows(architecture: ConvertedArchitecture) -> list[Row]:
    cnn = architecture.model.name
    rows = convolution_norm(("conv1", "bn1"), ("image/stem_conv", "image/stem_norm"), epsilon=TORCH_EPSILON)
    for stage, block, target in _blocks(cnn):
        source = f"layer{stage + 1}.{block}"
        pairs = [(f"conv{i}", f"bn{i}", str(i)) for i in range(1, _convolutions(cnn) + 1)]
        pairs += [("downsample.0", "downsample.1", "shortcut")] if _has_shortcut(cnn, stage, block) else []
        for conv, norm, name in pairs:
            source_pair, target_pair = (
                (f"{source}.{conv}", f"{source}.{norm}"),
                (f"{target}/conv_{name}", f"{target}/norm_{name}"),
            )
            rows += convolution_norm(source_pair, target_pair, epsilon=TORCH_EPSILON)
    return rows + _classifier(architecture, "fc")


TORCHVISION_RESNET = Family(
    name="torchvision_resnet",
    prefix="",
    recognise=("layer1.0.conv1.weight",),
    trunk_names=("conv1.", "bn1.", "layer"),
    # timm's resnetblur50, resnetaa50 and others have the very names and shapes of resnet50, and compute something else.
    classes={cnn: PublishedClass(CLASSIFIER) for cnn in RESNETS},
    heads=_heads("fc"),
    settings=_torchvision_resnet_settings,
    rows=_torchvision_resnet_rows,
    config=lambda architecture: {"architecture": architecture.model.name},
    in_transformers=False,
)


def _resnet_settings(
    config: Mapping[str, Any], names: Names, tensors: Tensors, named: str, parts: Parts
) -> ConvertedArchitecture:
    if config.get("downsample_in_bottleneck") or config.get("downsample_in_first_stage"):
        raise InputError("config.json says it is a ResNet of version 1; 1.5 can be ported (the stride on the 3x3)")
    if config.get("hidden_act", "relu") != "relu":
        raise InputError(f"config.json says hidden_act = {config['hidden_act']!r}; a ResNet has 'relu'")
    firsts = [name for name in names if name.endswith(".layer.0.convolution.weight")]
    counts = [sum(name.startswith(f"encoder.stages.{stage}.") for name in firsts) for stage in range(4)]
    three = "encoder.stages.0.layers.0.layer.2.convolution.weight" in names
    cnn = _resnet_of(tuple(counts), 3 if three else 2)
    for key, expected in (_resnet_shape(cnn) | {"num_channels": 3}).items():
        if config.get(key, expected) != expected:
            raise InputError(
                f"config.json says {key} = {config[key]!r}; its tensors are those of a {cnn}: {expected!r}"
            )
    return _frozen(cnn, names, tensors, parts, "classifier.1", IMAGENET)


def _resnet_rows(architecture: ConvertedArchitecture) -> list[Row]:
    cnn = architecture.model.name

    def pair(source, conv, norm):
        source_pair = (f"{source}.convolution", f"{source}.normalization")
        return convolution_norm(source_pair, (conv, norm), epsilon=TORCH_EPSILON)

    rows = pair("embedder.embedder", "image/stem_conv", "image/stem_norm")
    for stage, block, target in _blocks(cnn):
        source = f"encoder.stages.{stage}.layers.{block}"
        for index in range(_convolutions(cnn)):
            rows += pair(f"{source}.layer.{index}", f"{target}/conv_{index + 1}", f"{target}/norm_{index + 1}")
        if _has_shortcut(cnn, stage, block):
            rows += pair(f"{source}.shortcut", f"{target}/conv_shortcut", f"{target}/norm_shortcut")
    return rows + _classifier(architecture, "classifier.1")


def _resnet_shape(cnn: str) -> dict[str, Any]:
    """Settings that the shapes of the tensors decide."""
    bottleneck = _convolutions(cnn) == 3
    return {
        "depths": list(RESNETS[cnn][1]),
        "layer_type": "bottleneck" if bottleneck else "basic",
        "embedding_size": 64,
        "hidden_sizes": [64 * 2**stage * (4 if bottleneck else 1) for stage in range(4)],
    }


def _resnet_config(architecture: ConvertedArchitecture) -> dict[str, Any]:
    return _resnet_shape(architecture.model.name) | {
        "hidden_act": "relu",
        "downsample_in_bottleneck": False,
        "downsample_in_first_stage": False,
        "id2label": {str(index): f"LABEL_{index}" for index in range(architecture.classes)},
    }


RESNET = Family(
    name="resnet",
    prefix="resnet",
    recognise=("embedder.embedder.convolution.weight",),
    trunk_names=("embedder.", "encoder."),
    # RegNet has these names too, and only config.json tells version 1 from 1.5.
    classes={"ResNetModel": PublishedClass(), "ResNetForImageClassification": PublishedClass(CLASSIFIER)},
    heads=_heads("classifier.1"),
    settings=_resnet_settings,
    rows=_resnet_rows,
    config=_resnet_config,
    outside=("classifier.",),
)


# MobileNetV2 and EfficientNet-Lite0


def _expansions(cnn: str) -> list[int]:
    """The expansion of every block, first to last."""
    return [row.expansion for row in INVERTED_RESIDUALS[cnn][0] for _ in range(row.depth)]


def _mobilenet_rows(architecture: ConvertedArchitecture) -> list[Row]:
    def pair(conv, norm, target):
        return convolution_norm((conv, norm), (f"image/{target}_conv", f"image/{target}_norm"), epsilon=TORCH_EPSILON)

    rows = pair("features.0.0", "features.0.1", "stem")
    expansions = _expansions("mobilenet_v2")
    for index, expansion in enumerate(expansions):
        source, target = f"features.{index + 1}.conv", f"block_{index}"
        if expansion > 1:
            rows += pair(f"{source}.0.0", f"{source}.0.1", f"{target}/expand")
        first = 1 if expansion > 1 else 0
        rows += pair(f"{source}.{first}.0", f"{source}.{first}.1", f"{target}/depthwise")
        rows += pair(f"{source}.{first + 1}", f"{source}.{first + 2}", f"{target}/project")
    last = f"features.{len(expansions) + 1}"
    return rows + pair(f"{last}.0", f"{last}.1", "head") + _classifier(architecture, "classifier.1")


TORCHVISION_MOBILENET = Family(
    name="torchvision_mobilenet_v2",
    prefix="",
    recognise=("features.1.conv.0.0.weight",),
    trunk_names=("features.",),
    classes={"mobilenet_v2": PublishedClass(CLASSIFIER, alone=True)},
    heads=_heads("classifier.1"),
    settings=lambda config, names, tensors, named, parts: _frozen(
        named, names, tensors, parts, "classifier.1", TORCHVISION
    ),
    rows=_mobilenet_rows,
    config=lambda architecture: {"architecture": architecture.model.name},
    in_transformers=False,
)


def _lite_rows(architecture: ConvertedArchitecture) -> list[Row]:
    def pair(conv, norm, target):
        return convolution_norm((conv, norm), (f"image/{target}_conv", f"image/{target}_norm"), epsilon=LITE_EPSILON)

    rows = pair("_conv_stem", "_bn0", "stem")
    for index, expansion in enumerate(_expansions("efficientnet_lite0")):
        source, target = f"_blocks.{index}", f"block_{index}"
        if expansion > 1:
            rows += pair(f"{source}._expand_conv", f"{source}._bn0", f"{target}/expand")
        rows += pair(f"{source}._depthwise_conv", f"{source}._bn1", f"{target}/depthwise")
        rows += pair(f"{source}._project_conv", f"{source}._bn2", f"{target}/project")
    return rows + pair("_conv_head", "_bn1", "head") + _classifier(architecture, "_fc")


EFFICIENTNET_LITE0 = Family(
    name="efficientnet_lite0",
    prefix="",
    recognise=("_conv_stem.weight",),
    trunk_names=("_conv_", "_bn", "_blocks."),
    classes={"efficientnet_lite0": PublishedClass(CLASSIFIER, alone=True)},
    heads=_heads("_fc"),
    settings=lambda config, names, tensors, named, parts: _frozen(named, names, tensors, parts, "_fc", LITE),
    rows=_lite_rows,
    config=lambda architecture: {"architecture": architecture.model.name},
    in_transformers=False,
)
