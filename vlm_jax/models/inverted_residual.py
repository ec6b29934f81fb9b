"""Networks of inverted residual blocks: MobileNetV2 (Sandler et al. 2018) and EfficientNet-Lite0 (Tan and Le 2019).

Layers and names are those of the published weights, so that they can be ported: a batch norm becomes a frozen norm with
scale = gamma / sqrt(variance + epsilon) and bias = beta - mean * scale.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from vlm_jax.config.encoders import Norm
from vlm_jax.models.convolution import NORMS, Conv, DepthwiseConv, Padding

STEM_WIDTH, HEAD_WIDTH = 32, 1280


class Row(NamedTuple):
    """Blocks of one width in a row."""

    expansion: int
    """Channels inside a block, as a multiple of those that come in."""
    width: int
    """Channels that come out."""
    depth: int
    """Number of blocks."""
    stride: int
    """Of the first block; the others have stride 1."""
    kernel_size: int
    """Of the depthwise convolutions."""


class InvertedResidual(nn.Module):
    """1x1 up (not for expansion 1), depthwise, 1x1 down; the input is added where the shape stays.

    Linear bottlenecks: no activation after the last. `width` channels come out.
    """

    expansion: int
    width: int
    stride: int
    kernel_size: int
    padding: Padding
    norm: Norm
    dtype: jnp.dtype
    convolution: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B H W F"]:
        channels = x.shape[-1]
        y = x
        if self.expansion > 1:
            y = jax.nn.relu6(_conv_norm(self, y, "expand", self.expansion * channels, 1))
        depthwise = DepthwiseConv(
            self.kernel_size, self.stride, self.convolution, self.dtype, self.padding, name="depthwise_conv"
        )
        y = jax.nn.relu6(NORMS[self.norm](name="depthwise_norm")(depthwise(y)))
        y = _conv_norm(self, y, "project", self.width, 1)
        return x + y if self.stride == 1 and channels == self.width else y


def _conv_norm(module, x, name, features, size, stride=1):
    """A convolution and its norm, `NAME_conv` and `NAME_norm` of the module."""
    x = Conv(features, size, stride, module.convolution, module.dtype, module.padding, name=f"{name}_conv")(x)
    return NORMS[module.norm](name=f"{name}_norm")(x)


class InvertedResiduals(nn.Module):
    """Pixels [B, h, w, 3] to the grid [B, h / 32, w / 32, 1280] before pooling (strides of 32 in all), both rounded up.

    A 3x3 stem of stride 2, the rows' blocks, numbered through as `block_0`, `block_1` and so on, and a 1x1 head.
    """

    rows: tuple[Row, ...]
    padding: Padding
    norm: Norm
    dtype: jnp.dtype
    convolution: str = "auto"

    @nn.compact
    def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B gh gw C"]:
        x = jax.nn.relu6(_conv_norm(self, image, "stem", STEM_WIDTH, 3, 2))
        blocks = ((row, row.stride if place == 0 else 1) for row in self.rows for place in range(row.depth))
        for number, (row, stride) in enumerate(blocks):
            x = InvertedResidual(
                row.expansion, row.width, stride, row.kernel_size, self.padding,
                self.norm, self.dtype, self.convolution, name=f"block_{number}",
            )(x)  # fmt: skip
        return jax.nn.relu6(_conv_norm(self, x, "head", HEAD_WIDTH, 1))


# Table 2 of Sandler et al. 2018, whose t, c, n and s are the first four columns.
MOBILENET_V2 = (
    Row(1, 16, 1, 1, 3),
    Row(6, 24, 2, 2, 3),
    Row(6, 32, 3, 2, 3),
    Row(6, 64, 4, 2, 3),
    Row(6, 96, 3, 1, 3),
    Row(6, 160, 3, 2, 3),
    Row(6, 320, 1, 1, 3),
)
# Table 1 of Tan and Le 2019 (B0), the strides from its resolutions. The Lite release (github.com/tensorflow/tpu,
# models/official/efficientnet/lite) leaves out squeeze-and-excitation and takes ReLU6 for swish.
EFFICIENTNET_LITE0 = (
    Row(1, 16, 1, 1, 3),
    Row(6, 24, 2, 2, 3),
    Row(6, 40, 2, 2, 5),
    Row(6, 80, 3, 2, 3),
    Row(6, 112, 3, 1, 5),
    Row(6, 192, 4, 2, 5),
    Row(6, 320, 1, 1, 3),
)

INVERTED_RESIDUALS: dict[str, tuple[tuple[Row, ...], Padding]] = {
    "mobilenet_v2": (MOBILENET_V2, "symmetric"),
    "efficientnet_lite0": (EFFICIENTNET_LITE0, "same"),
}
