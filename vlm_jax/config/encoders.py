"""Image encoders: from an image to a grid of features. Each has the settings of its own."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import model_validator

from vlm_jax.config.quantizers import Quantizer
from vlm_jax.settings.effects import Place
from vlm_jax.settings.groups import CHOICE, Group
from vlm_jax.settings.rules import Count, Counts, Whole, check_stages

Positions = Literal["sequence", "grid", "shared"]
Norm = Literal["group", "instance", "frozen"]


class GridEncoder(Group):
    """A grid of image features as the trunk reads it."""

    positions: Positions = "sequence"
    """A vector for each grid position in reading order, the sum of its row's and its column's, or one for all."""
    projection: Literal["linear", "mlp"] = "linear"
    """From the grid to the hidden size: one matrix, or two with a GELU between them as in LLaVA-1.5."""


class SmallCNN(GridEncoder):
    """A plain residual CNN."""

    kind: Literal["small"] = "small"
    stem_width: Count = 32
    """Channels of the first 3x3 convolution."""
    stem_stride: Count = 1
    """Stride of that first convolution."""
    widths: Counts = (32, 64, 128)
    """Channels of each stage; each stage halves height and width."""
    blocks: tuple[Whole, ...] = (0, 1, 1)
    """Residual blocks of each stage, after its strided convolution."""
    norm: Norm = "group"
    """Group norm, `instance` norm of each channel, or `frozen`: a scale and a bias that stay as initialised."""

    @model_validator(mode="after")
    def check_blocks(self) -> "SmallCNN":
        """Every stage has a width and a number of blocks."""
        check_stages(self.widths, self.blocks, "blocks")
        return self


class PublishedCNN(GridEncoder):
    """A published CNN."""

    norm: Norm = "group"
    """Group or `instance` norm from scratch; `frozen` is a converted batch norm folded into a scale and a bias."""

    @property
    def name(self) -> str:
        """The name of its publication."""
        return type(self).model_fields["kind"].default


class ResNet(PublishedCNN):
    """A ResNet, version 1.5."""

    kind: Literal["resnet"] = "resnet"
    depth: Literal[18, 34, 50, 101] = 50
    """Layers."""

    @property
    def name(self) -> str:
        """The name of its publication."""
        return f"resnet{self.depth}"


class MobileNetV2(PublishedCNN):
    """MobileNetV2: depthwise convolutions, 1280 channels at 1/32 of the size."""

    kind: Literal["mobilenet_v2"] = "mobilenet_v2"


class EfficientNetLite0(PublishedCNN):
    """EfficientNet-Lite0: depthwise convolutions, 1280 channels at 1/32 of the size."""

    kind: Literal["efficientnet_lite0"] = "efficientnet_lite0"


class Patches(GridEncoder):
    """The image cut into squares, as in ViLT."""

    kind: Literal["patches"] = "patches"
    patch_size: Count = 16
    """Side of a patch in pixels."""


class Features(GridEncoder):
    """Precomputed grid features in the place of an image."""

    kind: Literal["features"] = "features"
    feature_size: Count = 2048
    """Channels of the features."""


class FeatureFolder(GridEncoder):
    """Grid features in the place of images, computed before."""

    kind: Literal["features"] = "features"
    folder: Place[Path]
    """What `extract-features` wrote, a directory with ID.npy for each image, or a .safetensors file with a tensor for
    each image id. The images stay where they are: the features are theirs."""


class ImageTokens(GridEncoder):
    """Image tokens in the place of an image."""

    kind: Literal["image_tokens"] = "image_tokens"
    quantizer: Quantizer
    """The image tokenizer's quantizer."""


PixelEncoder = Annotated[SmallCNN | ResNet | MobileNetV2 | EfficientNetLite0 | Patches, CHOICE]
ImageSide = Annotated[SmallCNN | ResNet | MobileNetV2 | EfficientNetLite0 | Patches | FeatureFolder, CHOICE]
ImageEncoder = Annotated[SmallCNN | ResNet | MobileNetV2 | EfficientNetLite0 | Patches | Features | ImageTokens, CHOICE]
