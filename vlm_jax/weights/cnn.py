"""ResNet, MobileNetV2 and EfficientNet-Lite0 with their ImageNet classifiers: the names of published files.

ResNets come under transformers' names and under torchvision's; both are version 1.5. Batch norms are folded.
"""

from collections.abc import Callable, Iterable

from vlm_jax.config.encoders import EfficientNetLite0, MobileNetV2, PublishedCNN, ResNet
from vlm_jax.data.image_settings import CenterCrop, ImageInput
from vlm_jax.errors import InputError, one_of
from vlm_jax.models.inverted_residual import INVERTED_RESIDUALS
from vlm_jax.models.pretrained import Part
from vlm_jax.models.resnet import RESNETS, BasicBlock
from vlm_jax.types import Json
from vlm_jax.weights.family import ConvertedArchitecture, Family, PublishedClass, PublishedFile, label_names
from vlm_jax.weights.preprocessor import with_timm
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
CLASSIFIER: tuple[Part, ...] = ("classifier",)
Unit = tuple[str, str]
"""The names of a convolution and of the batch norm after it."""


def _frozen(file: PublishedFile, cnn: str, classifier: str, image: ImageInput) -> ConvertedArchitecture:
    """`classifier` is the name of the layer whose rows are the classes."""
    classes = file.rows_of(f"{classifier}.weight") if file.parts else 0
    return ConvertedArchitecture(PUBLISHED[cnn], (), classes, image)


def _classifier(architecture: ConvertedArchitecture, source: str) -> list[Row]:
    return linear(source, "head/classifier") if architecture.classes else []


def _heads(classifier: str) -> dict[Part, tuple[str, ...]]:
    return {"classifier": source_names(linear(classifier, ""))}


def _torch_family(name: str, *, classifier: str, **fields: object) -> Family:
    """A family whose network is in `torch_cnns`; its config.json is timm's."""

    def config(architecture: ConvertedArchitecture) -> dict[str, Json]:
        return {"architecture": architecture.model.name}

    return Family(name, prefix="", heads=_heads(classifier), config=config, in_transformers=False, **fields)


# ResNet


def _convolutions(cnn: str) -> int:
    return 2 if RESNETS[cnn][0] is BasicBlock else 3


def _resnet_of(depths: tuple[int, ...], convolutions: int) -> str:
    for cnn, (_, known) in RESNETS.items():
        if known == depths and _convolutions(cnn) == convolutions:
            return cnn
    kind = "basic" if convolutions == 2 else "bottleneck"
    raise InputError(f"a ResNet of {kind} blocks {list(depths)} cannot be ported; {one_of(RESNETS)}")


def _resnet_rows(cnn: str, stem: Unit, unit: Callable[[int, int, int | None], Unit]) -> list[Row]:
    """`unit` names the convolution of a stage, a block and a number from 1; None is the block's shortcut."""
    rows = convolution_norm(stem, ("image/stem_conv", "image/stem_norm"), epsilon=TORCH_EPSILON)
    for stage, depth in enumerate(RESNETS[cnn][1]):
        for block in range(depth):
            numbers: list[int | None] = list(range(1, _convolutions(cnn) + 1))
            # The first block of a stage changes the shape, but for the first stage of basic blocks.
            numbers += [None] * (block == 0 and (stage > 0 or _convolutions(cnn) == 3))
            for number in numbers:
                target, name = f"image/stage_{stage + 1}_block_{block}", number or "shortcut"
                names = (f"{target}/conv_{name}", f"{target}/norm_{name}")
                rows += convolution_norm(unit(stage, block, number), names, epsilon=TORCH_EPSILON)
    return rows


def _torchvision_unit(stage: int, block: int, number: int | None) -> Unit:
    source = f"layer{stage + 1}.{block}"
    if number is None:
        return f"{source}.downsample.0", f"{source}.downsample.1"
    return f"{source}.conv{number}", f"{source}.bn{number}"


def _torchvision_resnet_settings(file: PublishedFile) -> ConvertedArchitecture:
    firsts = [name for name in file.names if name.endswith(".conv1.weight")]
    counts = [sum(name.startswith(f"layer{stage}.") for name in firsts) for stage in range(1, 5)]
    cnn = _resnet_of(tuple(counts), 3 if "layer1.0.conv3.weight" in file.names else 2)
    if cnn != file.class_name:
        raise InputError(f"the file is said to hold a {file.class_name!r}, and its tensors are those of a {cnn!r}")
    return _frozen(file, cnn, "fc", with_timm(TORCHVISION, file.config))


def _torchvision_resnet_rows(architecture: ConvertedArchitecture) -> list[Row]:
    rows = _resnet_rows(architecture.model.name, ("conv1", "bn1"), _torchvision_unit)
    return rows + _classifier(architecture, "fc")


TORCHVISION_RESNET = _torch_family(
    "torchvision_resnet",
    classifier="fc",
    recognise=("layer1.0.conv1.weight",),
    trunk_names=("conv1.", "bn1.", "layer"),
    # timm's resnetblur50, resnetaa50 and others have the very names and shapes of resnet50, and compute something else.
    classes={cnn: PublishedClass(CLASSIFIER) for cnn in RESNETS},
    settings=_torchvision_resnet_settings,
    rows=_torchvision_resnet_rows,
)


def _resnet_settings(file: PublishedFile) -> ConvertedArchitecture:
    config = file.config
    if config.get("downsample_in_bottleneck") or config.get("downsample_in_first_stage"):
        raise InputError("config.json says it is a ResNet of version 1; 1.5 can be ported (the stride on the 3x3)")
    if config.get("hidden_act", "relu") != "relu":
        raise InputError(f"config.json says hidden_act = {config['hidden_act']!r}; a ResNet has 'relu'")
    firsts = [name for name in file.names if name.endswith(".layer.0.convolution.weight")]
    counts = [sum(name.startswith(f"encoder.stages.{stage}.") for name in firsts) for stage in range(4)]
    three = "encoder.stages.0.layers.0.layer.2.convolution.weight" in file.names
    cnn = _resnet_of(tuple(counts), 3 if three else 2)
    for key, expected in (_resnet_shape(cnn) | {"num_channels": 3}).items():
        if config.get(key, expected) != expected:
            raise InputError(f"config.json says {key} = {config[key]!r}; its tensors are of a {cnn}: {expected!r}")
    return _frozen(file, cnn, "classifier.1", IMAGENET)


def _resnet_unit(stage: int, block: int, number: int | None) -> Unit:
    source = f"encoder.stages.{stage}.layers.{block}"
    source += ".shortcut" if number is None else f".layer.{number - 1}"
    return f"{source}.convolution", f"{source}.normalization"


def _transformers_resnet_rows(architecture: ConvertedArchitecture) -> list[Row]:
    stem = ("embedder.embedder.convolution", "embedder.embedder.normalization")
    return _resnet_rows(architecture.model.name, stem, _resnet_unit) + _classifier(architecture, "classifier.1")


def _resnet_shape(cnn: str) -> dict[str, Json]:
    """Settings that the shapes of the tensors decide."""
    bottleneck = _convolutions(cnn) == 3
    return {
        "depths": list(RESNETS[cnn][1]),
        "layer_type": "bottleneck" if bottleneck else "basic",
        "embedding_size": 64,
        "hidden_sizes": [64 * 2**stage * (4 if bottleneck else 1) for stage in range(4)],
    }


def _resnet_config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    version = {"hidden_act": "relu", "downsample_in_bottleneck": False, "downsample_in_first_stage": False}
    return _resnet_shape(architecture.model.name) | version | label_names(architecture.classes)


RESNET = Family(
    name="resnet",
    prefix="resnet",
    recognise=("embedder.embedder.convolution.weight",),
    trunk_names=("embedder.", "encoder."),
    # RegNet has these names too, and only config.json tells version 1 from 1.5.
    classes={"ResNetModel": PublishedClass(), "ResNetForImageClassification": PublishedClass(CLASSIFIER)},
    heads=_heads("classifier.1"),
    settings=_resnet_settings,
    rows=_transformers_resnet_rows,
    config=_resnet_config,
    outside=("classifier.",),
)


# MobileNetV2 and EfficientNet-Lite0


def _expansions(cnn: str) -> list[int]:
    """The expansion of every block, first to last."""
    return [row.expansion for row in INVERTED_RESIDUALS[cnn][0] for _ in range(row.depth)]


def _inverted_residual_rows(stem: Unit, blocks: Iterable[list[Unit]], head: Unit, *, epsilon: float) -> list[Row]:
    """A block has two units or, where it expands, three."""
    units = {"stem": stem}
    for index, block in enumerate(blocks):
        targets = ("expand", "depthwise", "project")[-len(block) :]
        units |= {f"block_{index}/{target}": unit for target, unit in zip(targets, block, strict=True)}
    units["head"] = head
    rows = []
    for target, unit in units.items():
        rows += convolution_norm(unit, (f"image/{target}_conv", f"image/{target}_norm"), epsilon=epsilon)
    return rows


def _mobilenet_rows(architecture: ConvertedArchitecture) -> list[Row]:
    blocks = []
    for index, expansion in enumerate(_expansions("mobilenet_v2"), start=1):
        source, first = f"features.{index}.conv", int(expansion > 1)
        units = [(f"{source}.{number}.0", f"{source}.{number}.1") for number in range(first + 1)]
        blocks.append([*units, (f"{source}.{first + 1}", f"{source}.{first + 2}")])
    last = f"features.{len(blocks) + 1}"
    head = (f"{last}.0", f"{last}.1")
    rows = _inverted_residual_rows(("features.0.0", "features.0.1"), blocks, head, epsilon=TORCH_EPSILON)
    return rows + _classifier(architecture, "classifier.1")


TORCHVISION_MOBILENET = _torch_family(
    "torchvision_mobilenet_v2",
    classifier="classifier.1",
    recognise=("features.1.conv.0.0.weight",),
    trunk_names=("features.",),
    classes={"mobilenet_v2": PublishedClass(CLASSIFIER, alone=True)},
    settings=lambda file: _frozen(file, file.class_name, "classifier.1", TORCHVISION),
    rows=_mobilenet_rows,
)


def _lite_rows(architecture: ConvertedArchitecture) -> list[Row]:
    blocks = []
    for index, expansion in enumerate(_expansions("efficientnet_lite0")):
        names = [("_expand_conv", "_bn0")] * (expansion > 1) + [("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        blocks.append([(f"_blocks.{index}.{conv}", f"_blocks.{index}.{norm}") for conv, norm in names])
    rows = _inverted_residual_rows(("_conv_stem", "_bn0"), blocks, ("_conv_head", "_bn1"), epsilon=LITE_EPSILON)
    return rows + _classifier(architecture, "_fc")


EFFICIENTNET_LITE0 = _torch_family(
    "efficientnet_lite0",
    classifier="_fc",
    recognise=("_conv_stem.weight",),
    trunk_names=("_conv_", "_bn", "_blocks."),
    classes={"efficientnet_lite0": PublishedClass(CLASSIFIER, alone=True)},
    settings=lambda file: _frozen(file, file.class_name, "_fc", LITE),
    rows=_lite_rows,
)
