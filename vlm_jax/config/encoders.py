"""Image encoders: from an image to a grid of features. Each has the settings of its own."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import model_validator

from vlm_jax.config.layers import ActivationAndNorm, GatedActivation, LayerSizes
from vlm_jax.config.quantizers import Quantizer
from vlm_jax.settings.changes import with_changes
from vlm_jax.settings.effects import Place
from vlm_jax.settings.groups import CHOICE, Group
from vlm_jax.settings.rules import Count, Counts, Positive, Whole, check_stages, nearest_multiple

Positions = Literal["sequence", "grid", "shared"]
Norm = Literal["group", "instance", "frozen"]


class GridEncoder(Group):
    """A grid of image features as the trunk reads it."""

    positions: Positions = "sequence"
    """A vector for each grid position in reading order, the sum of its row's and its column's, or one for all."""
    projection: Literal["linear", "mlp"] = "linear"
    """From the grid to the hidden size: one matrix, or two with a GELU between them as in LLaVA-1.5."""

    @property
    def name(self) -> str:
        """The name of its publication, or of its kind."""
        return type(self).model_fields["kind"].default


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


class BatchNormCNN(PublishedCNN):
    """A CNN that was published with batch norms."""

    norm: Norm = "group"
    """Group or `instance` norm from scratch; `frozen` is a converted batch norm folded into a scale and a bias."""


# The kind of block, and the blocks of each stage, by depth: table 1 of He et al. 2016.
RESNET_BLOCKS: dict[int, tuple[Literal["basic", "bottleneck"], tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}


class CustomResNet(BatchNormCNN):
    """A ResNet of any depth and width, version 1 or 1.5, with one group or several."""

    kind: Literal["custom_resnet"] = "custom_resnet"
    layer_type: Literal["basic", "bottleneck"] = "bottleneck"
    """Two 3x3 convolutions a block, or 1x1, 3x3 and 1x1."""
    depths: Counts = (3, 4, 6, 3)
    """Blocks of each stage."""
    embedding_size: Count = 64
    """Channels of the first convolution."""
    hidden_sizes: Counts = (256, 512, 1024, 2048)
    """Channels that come out of each stage."""
    groups: Count = 1
    """Groups of a bottleneck's 3x3 convolution (ResNeXt)."""
    width_factor: Count = 1
    """Width of a bottleneck's 3x3 convolution, as a multiple of a quarter of the stage's channels (wide ResNets)."""
    downsample_in_first_stage: bool = False
    """Halve height and width in the first stage as well."""
    downsample_in_bottleneck: bool = False
    """Put a bottleneck's stride on its first 1x1 convolution: version 1. Version 1.5 has it on the 3x3."""

    @property
    def name(self) -> str:
        """The name of its publication, or its kind."""
        published = (name for name, cnn in GROUPED_OR_WIDE_RESNETS.items() if cnn.network == self.network)
        return next(published, "custom_resnet")

    @property
    def network(self) -> dict[str, object]:
        """What decides its convolutions."""
        return self.model_dump(exclude=set(BatchNormCNN.model_fields))

    def inner_width(self, stage: int) -> int:
        """Channels between a block's convolutions, `stage` from 0."""
        width = self.hidden_sizes[stage]
        return width if self.layer_type == "basic" else width // 4 * self.width_factor

    @model_validator(mode="after")
    def check_layout(self) -> "CustomResNet":
        """Every stage has a width and a number of blocks, and its groups are equal."""
        check_stages(self.hidden_sizes, self.depths, "depths", widths_name="hidden_sizes")
        if self.layer_type == "basic" and (self.groups, self.width_factor) != (1, 1):
            raise ValueError("layer_type basic goes with groups 1 and width_factor 1; choose layer_type bottleneck")
        for stage, width in enumerate(self.hidden_sizes):
            inner = self.inner_width(stage)
            if not inner or inner % self.groups:
                raise ValueError(
                    f"hidden_sizes {width} gives a 3x3 convolution of {inner} channels, which groups {self.groups} "
                    "does not divide"
                )
        return self


# torchvision's (resnet.py): Zagoruyko and Komodakis 2016, Xie et al. 2017.
GROUPED_OR_WIDE_RESNETS = {
    "wide_resnet50_2": CustomResNet(width_factor=2),
    "wide_resnet101_2": CustomResNet(width_factor=2, depths=(3, 4, 23, 3)),
    "resnext50_32x4d": CustomResNet(groups=32, width_factor=2),
    "resnext101_32x8d": CustomResNet(groups=32, width_factor=4, depths=(3, 4, 23, 3)),
    "resnext101_64x4d": CustomResNet(groups=64, width_factor=4, depths=(3, 4, 23, 3)),
}


class ResNet(BatchNormCNN):
    """A ResNet, version 1.5."""

    kind: Literal["resnet"] = "resnet"
    depth: Literal[18, 34, 50, 101, 152] = 50
    """Layers."""

    @property
    def name(self) -> str:
        """The name of its publication."""
        return f"resnet{self.depth}"

    @property
    def custom(self) -> CustomResNet:
        """The same network by its depths and widths."""
        layer_type, depths = RESNET_BLOCKS[self.depth]
        hidden_sizes = tuple((64 if layer_type == "basic" else 256) * 2**stage for stage in range(4))
        return CustomResNet(norm=self.norm, layer_type=layer_type, depths=depths, hidden_sizes=hidden_sizes)


class MobileNetV2(BatchNormCNN):
    """MobileNetV2: depthwise convolutions, 1280 channels at 1/32 of the size."""

    kind: Literal["mobilenet_v2"] = "mobilenet_v2"
    depth_multiplier: Positive = 1.0
    """Factor of all widths, which are rounded to multiples of 8."""
    finegrained_output: bool = True
    """Keep 1280 channels in the last convolution where `depth_multiplier` is below 1."""
    tf_padding: bool = False
    """Pad as TensorFlow does; false pads as torchvision does."""


class EfficientNet(BatchNormCNN):
    """EfficientNet (Tan and Le 2019): depthwise convolutions, squeeze and excitation; the defaults are B0's."""

    kind: Literal["efficientnet"] = "efficientnet"
    width_coefficient: Positive = 1.0
    """Factor of all widths, which are rounded to multiples of 8."""
    depth_coefficient: Positive = 1.0
    """Factor of the blocks of each row, rounded up."""
    depthwise_padding: tuple[Whole, ...] = ()
    """Blocks, from 0, that pad all sides alike: those with a stride where the published image size is odd."""
    top_convolution: bool = True
    """End in a 1x1 convolution of 1280 channels times `width_coefficient`; ALIGN's image side ends in the blocks."""


class EfficientNetLite0(BatchNormCNN):
    """EfficientNet-Lite0: depthwise convolutions, 1280 channels at 1/32 of the size."""

    kind: Literal["efficientnet_lite0"] = "efficientnet_lite0"


class ConvNeXt(PublishedCNN):
    """ConvNeXt: 7x7 depthwise convolutions, layer norms and feed-forward layers; the defaults are its tiny size."""

    kind: Literal["convnext"] = "convnext"
    depths: Counts = (3, 3, 9, 3)
    """Blocks of each stage."""
    hidden_sizes: Counts = (96, 192, 384, 768)
    """Channels of each stage; each but the first halves height and width."""
    patch_size: Count = 4
    """Side in pixels of the patches that the first layer projects."""
    layer_scale: bool = True
    """Scale each channel of what a block adds."""
    layer_norm_eps: Positive = 1e-12
    """Epsilon of the layer norm over the mean of the grid, which a published classifier reads."""

    @model_validator(mode="after")
    def check_depths(self) -> "ConvNeXt":
        """Every stage has a width and a number of blocks."""
        check_stages(self.hidden_sizes, self.depths, "depths", widths_name="hidden_sizes")
        return self


class Patches(GridEncoder):
    """The image cut into squares, as in ViLT."""

    kind: Literal["patches"] = "patches"
    patch_size: Count = 16
    """Side of a patch in pixels."""


class VisionTransformer(GridEncoder, LayerSizes, ActivationAndNorm):
    """A pre-norm transformer over patches: ViT, DeiT, DINOv2, and the image side of CLIP and SigLIP."""

    kind: Literal["vit"] = "vit"
    patch_size: Count = 16
    """Side of a patch in pixels; it divides the sides of every image."""
    drop_remainder: bool = False
    """Leave out the pixels at the bottom and right that fill no patch, as in SigLIP's so400m-patch14-384."""
    image_size: tuple[Count, Count] | None = None
    """Height and width in pixels that the position table is for, by default those of the run's images. For an image of
    another size the positions are interpolated."""
    hidden_act: GatedActivation = "gelu"
    """Feed-forward activation: `gelu` exact, `gelu_new` the tanh approximation, `quick_gelu` CLIP's, `swiglu` with a
    gate for each channel, as in the largest DINOv2."""
    class_token: bool = True
    """A learned token before the patches."""
    distillation_token: bool = False
    """A second learned token, DeiT's."""
    patch_bias: bool = True
    """Add a bias to the projection of patches; CLIP has none."""
    embedding_norm: bool = False
    """A layer norm before the first layer, as in CLIP."""
    layer_scale: bool = False
    """Scale each channel of what attention and feed-forward layers add, as in DINOv2."""
    final_norm: Literal["every_token", "class_token"] = "every_token"
    """What the layer norm after the last layer is applied to; in CLIP the class token alone."""
    output: Literal["grid", "class_token", "mean"] = "grid"
    """What the trunk reads: every patch, the class token, or the mean of the patches."""

    @model_validator(mode="after")
    def check_tokens(self) -> "VisionTransformer":
        """What is said of the class token needs one, and patches divide the image of the position table."""
        for setting in ("final_norm", "output"):
            if not self.class_token and getattr(self, setting) == "class_token":
                raise ValueError(f"{setting} is 'class_token' and class_token is false; set class_token to true")
        if self.distillation_token and not self.class_token:
            raise ValueError("distillation_token is true and class_token is false; set class_token to true")
        if self.image_size is not None:
            self.grid_size(self.image_size)
        return self

    def grid_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches of an image of `size` pixels; `ValueError` where patches do not divide it."""
        side = self.patch_size
        if any(pixels % side for pixels in size) and not (self.drop_remainder and min(size) >= side):
            nearest = tuple(nearest_multiple(pixels, side) for pixels in size)
            raise ValueError(
                f"images of {size[0]} x {size[1]} pixels do not divide into patches of {side} x {side} pixels; "
                f"the nearest size is {nearest[0]} x {nearest[1]}"
            )
        return size[0] // side, size[1] // side


def for_images(encoder: "ImageSide", size: tuple[int, int]) -> "ImageSide":
    """The encoder of images of this size: what a transformer's positions are for where it does not say so."""
    if isinstance(encoder, VisionTransformer) and encoder.image_size is None:
        return with_changes(encoder, {"image_size": size})
    return encoder


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


AnyPublishedCNN = ResNet | CustomResNet | MobileNetV2 | EfficientNet | EfficientNetLite0 | ConvNeXt
PixelEncoder = Annotated[SmallCNN | AnyPublishedCNN | Patches | VisionTransformer, CHOICE]
ImageSide = Annotated[SmallCNN | AnyPublishedCNN | Patches | VisionTransformer | FeatureFolder, CHOICE]
ImageEncoder = Annotated[SmallCNN | AnyPublishedCNN | Patches | VisionTransformer | Features | ImageTokens, CHOICE]
