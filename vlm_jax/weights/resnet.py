"""ResNets of any depth, width and version: the names of transformers' files and of torchvision's."""

from collections.abc import Callable
from itertools import count, takewhile

from vlm_jax.config.encoders import GROUPED_OR_WIDE_RESNETS, RESNET_BLOCKS, CustomResNet, PublishedCNN, ResNet
from vlm_jax.data.image_settings import CenterCrop, ImageInput
from vlm_jax.errors import InputError, one_of
from vlm_jax.settings.changes import checked
from vlm_jax.settings.groups import Tree
from vlm_jax.types import Json
from vlm_jax.weights.cnn import (
    CLASSIFIER,
    IMAGENET_COLOURS,
    TORCHVISION,
    Unit,
    classifier_heads,
    classifier_rows,
    frozen_cnn,
    require,
    torch_family,
    unit_rows,
)
from vlm_jax.weights.family import TRAINED, ConvertedArchitecture, Family, PublishedClass, PublishedFile, label_names
from vlm_jax.weights.preprocessor import with_timm
from vlm_jax.weights.tables import Row

# preprocessor_config.json of microsoft/resnet-18 to -101: crop_pct 0.875, bicubic.
IMAGENET = ImageInput(size=(224, 224), resize=CenterCrop(short_side=256, corner="floored"), **IMAGENET_COLOURS)
TORCHVISION_RESNETS: dict[str, PublishedCNN] = {
    **{cnn.name: cnn for cnn in (ResNet(depth=depth) for depth in RESNET_BLOCKS)},
    **GROUPED_OR_WIDE_RESNETS,
}
UnitNames = Callable[[int, int, int | None], Unit]
"""The names of the convolution of a stage, a block (both from 0) and a number from 1; None is the block's shortcut."""
VERSION = ("downsample_in_bottleneck", "downsample_in_first_stage")


def _custom(architecture: ConvertedArchitecture) -> CustomResNet:
    cnn = architecture.model
    return cnn.custom if isinstance(cnn, ResNet) else cnn


def _layout(file: PublishedFile, stem: Unit, unit: UnitNames) -> Tree:
    """The settings of a `CustomResNet` that the shapes of its convolutions decide."""

    def shape(conv: str) -> tuple[int, ...]:
        name = f"{conv}.weight"
        if name not in file.names:
            raise InputError(f"its tensors are those of no ResNet: missing {name}")
        return (*file.tensors[file.names[name]].shape, 0, 0)[:2]

    def has(stage: int, block: int, number: int) -> bool:
        return f"{unit(stage, block, number)[0]}.weight" in file.names

    def depth(stage: int) -> int:
        return sum(1 for _ in takewhile(lambda block: has(stage, block, 1), count()))

    stages = list(takewhile(depth, count()))
    last = 3 if has(0, 0, 3) else 2
    widths = tuple(shape(unit(stage, 0, last)[0])[0] for stage in stages)
    layout: Tree = {
        "layer_type": "bottleneck" if last == 3 else "basic",
        "depths": tuple(map(depth, stages)),
        "embedding_size": shape(stem[0])[0],
        "hidden_sizes": widths,
    }
    if last == 3 and stages:
        inner, inner_of_a_group = shape(unit(0, 0, 2)[0])
        layout |= {"groups": inner // max(inner_of_a_group, 1), "width_factor": inner // max(widths[0] // 4, 1)}
    return layout


def _rows(architecture: ConvertedArchitecture, stem: Unit, unit: UnitNames, classifier: str) -> list[Row]:
    cnn = _custom(architecture)
    rows = unit_rows(architecture, stem, ("stem_conv", "stem_norm"))
    channels = cnn.embedding_size
    for stage, depth in enumerate(cnn.depths):
        for block in range(depth):
            numbers: list[int | None] = [1, 2, 3] if cnn.layer_type == "bottleneck" else [1, 2]
            strided = block == 0 and (stage > 0 or cnn.downsample_in_first_stage)
            numbers += [None] * (strided or channels != cnn.hidden_sizes[stage])
            channels = cnn.hidden_sizes[stage]
            for number in numbers:
                target, name = f"stage_{stage + 1}_block_{block}", number or "shortcut"
                names = (f"{target}/conv_{name}", f"{target}/norm_{name}")
                rows += unit_rows(architecture, unit(stage, block, number), names)
    return rows + classifier_rows(architecture, classifier)


# torchvision's names

TORCHVISION_STEM = ("conv1", "bn1")


def _torchvision_unit(stage: int, block: int, number: int | None) -> Unit:
    source = f"layer{stage + 1}.{block}"
    if number is None:
        return f"{source}.downsample.0", f"{source}.downsample.1"
    return f"{source}.conv{number}", f"{source}.bn{number}"


def _torchvision_settings(file: PublishedFile) -> ConvertedArchitecture:
    layout = checked(CustomResNet, _layout(file, TORCHVISION_STEM, _torchvision_unit))
    networks = {(cnn.custom if isinstance(cnn, ResNet) else cnn): name for name, cnn in TORCHVISION_RESNETS.items()}
    name = networks.get(layout)
    if name is None:
        shown = f"{layout.layer_type} blocks {list(layout.depths)} and widths {list(layout.hidden_sizes)}"
        raise InputError(f"a ResNet of {shown} is none of torchvision's; {one_of(TORCHVISION_RESNETS)}")
    if name != file.class_name:
        raise InputError(f"the file is said to hold a {file.class_name!r}, and its tensors are those of a {name!r}")
    return frozen_cnn(file, TORCHVISION_RESNETS[name], "fc", with_timm(TORCHVISION, file.config))


TORCHVISION_RESNET = torch_family(
    "torchvision_resnet",
    classifier="fc",
    recognise=("layer1.0.conv1.weight",),
    trunk_names=("conv1.", "bn1.", "layer"),
    # timm's resnetblur50, resnetaa50 and others have the very names and shapes of resnet50, and compute something else.
    classes={cnn: PublishedClass(CLASSIFIER) for cnn in TORCHVISION_RESNETS},
    settings=_torchvision_settings,
    rows=lambda architecture: _rows(architecture, TORCHVISION_STEM, _torchvision_unit, "fc"),
)


# transformers' names

TRANSFORMERS_STEM = ("embedder.embedder.convolution", "embedder.embedder.normalization")


def _transformers_unit(stage: int, block: int, number: int | None) -> Unit:
    source = f"encoder.stages.{stage}.layers.{block}"
    source += ".shortcut" if number is None else f".layer.{number - 1}"
    return f"{source}.convolution", f"{source}.normalization"


def _transformers_settings(file: PublishedFile) -> ConvertedArchitecture:
    config = file.config
    require(config, {"hidden_act": "relu", "num_channels": 3})
    layout = _layout(file, TRANSFORMERS_STEM, _transformers_unit)
    plain = {name: value for name, value in layout.items() if name not in ("groups", "width_factor")}
    version = {name: config.get(name, False) for name in VERSION}
    cnn = checked(CustomResNet, plain | version)
    named = next((known for known in map(_of_depth, RESNET_BLOCKS) if known.custom == cnn), cnn)
    for key, expected in _shape(cnn).items():
        if config.get(key, expected) != expected:
            tensors = f"its tensors are of a {named.name}: {expected!r}"
            raise InputError(f"config.json says {key} = {config[key]!r}; {tensors}")
    return frozen_cnn(file, named, "classifier.1", IMAGENET)


def _of_depth(depth: int) -> ResNet:
    return ResNet(depth=depth)


def _shape(cnn: CustomResNet) -> dict[str, Json]:
    """Settings that the shapes of the tensors decide."""
    return {
        "depths": list(cnn.depths),
        "layer_type": cnn.layer_type,
        "embedding_size": cnn.embedding_size,
        "hidden_sizes": list(cnn.hidden_sizes),
    }


def _config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    cnn = _custom(architecture)
    version = {name: getattr(cnn, name) for name in VERSION}
    return _shape(cnn) | {"hidden_act": "relu"} | version | label_names(architecture.classes)


RESNET = Family(
    name="resnet",
    prefix="resnet",
    recognise=("embedder.embedder.convolution.weight",),
    trunk_names=("embedder.", "encoder."),
    # RegNet has these names too, and only config.json tells version 1 from 1.5.
    classes={"ResNetModel": PublishedClass(), "ResNetForImageClassification": PublishedClass(CLASSIFIER)},
    heads=classifier_heads("classifier.1"),
    settings=_transformers_settings,
    rows=lambda architecture: _rows(architecture, TRANSFORMERS_STEM, _transformers_unit, "classifier.1"),
    config=_config,
    outside=("classifier.",),
    proven=TRAINED,
)
