"""Networks of inverted residual blocks (Sandler et al. 2018), with squeeze-and-excitation or without.

Layers and names are those of the published weights, so that they can be ported: a batch norm becomes a frozen norm with
scale = gamma / sqrt(variance + epsilon) and bias = beta - mean * scale.
"""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from vlm_jax.config.encoders import Norm
from vlm_jax.errors import InputError
from vlm_jax.models.convolution import NORMS, Conv, DepthwiseConv, Padding

Activation = Literal["relu6", "swish"]
ACTIVATIONS = {"relu6": jax.nn.relu6, "swish": jax.nn.silu}


class Block(NamedTuple):
    """An inverted residual block."""

    inner_width: int
    """Channels of the depthwise convolution."""
    width: int
    """Channels that come out."""
    stride: int
    """Of the depthwise convolution."""
    kernel_size: int
    padding: Padding
    expands: bool
    """Whether a 1x1 convolution makes the inner channels; without it they are those that come in."""
    adds_input: bool
    """Whether the input is added to the output."""
    squeeze_width: int = 0
    """Channels of the squeeze-and-excitation's hidden layer; 0 without one."""


class Layout(NamedTuple):
    """A network of inverted residual blocks."""

    stem_width: int
    blocks: tuple[Block, ...]
    head_width: int
    """Channels of the 1x1 convolution after the blocks; 0 without one."""
    padding: Padding
    """Of the stem."""
    activation: Activation


class SqueezeExcite(nn.Module):
    """Each channel times a factor that two layers compute from the means of all (Hu et al. 2018)."""

    width: int
    activation: Activation
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        y = nn.Dense(self.width, dtype=self.dtype, name="reduce")(x.mean((1, 2)))
        y = nn.Dense(x.shape[-1], dtype=self.dtype, name="expand")(ACTIVATIONS[self.activation](y))
        return x * jax.nn.sigmoid(y)[:, None, None]


class InvertedResidual(nn.Module):
    """1x1 up, depthwise, squeeze-and-excitation, 1x1 down; no activation after the last."""

    block: Block
    activation: Activation
    norm: Norm
    dtype: jnp.dtype
    convolution: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B H W F"]:
        block, activate, y = self.block, ACTIVATIONS[self.activation], x
        if block.expands:
            y = activate(_conv_norm(self, y, "expand", block.inner_width, 1))
        depthwise = DepthwiseConv(
            block.kernel_size, block.stride, self.convolution, self.dtype, block.padding, name="depthwise_conv"
        )
        y = activate(NORMS[self.norm](name="depthwise_norm")(depthwise(y)))
        if block.squeeze_width:
            y = SqueezeExcite(block.squeeze_width, self.activation, self.dtype, name="squeeze_excite")(y)
        y = _conv_norm(self, y, "project", block.width, 1)
        return x + y if block.adds_input else y


def _conv_norm(module, x, name, features, size, stride=1, padding="symmetric"):
    """A convolution and its norm, `NAME_conv` and `NAME_norm` of the module."""
    x = Conv(features, size, stride, module.convolution, module.dtype, padding, name=f"{name}_conv")(x)
    return NORMS[module.norm](name=f"{name}_norm")(x)


class InvertedResiduals(nn.Module):
    """Pixels [B, h, w, 3] to the grid [B, h / 32, w / 32, C] before pooling (strides of 32 in all).

    A 3x3 stem of stride 2, the blocks, numbered through as `block_0`, `block_1` and so on, and a 1x1 head where the
    layout has one.
    """

    layout: Layout
    norm: Norm
    dtype: jnp.dtype
    convolution: str = "auto"

    @nn.compact
    def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B gh gw C"]:
        layout, activate = self.layout, ACTIVATIONS[self.layout.activation]
        smallest = 2 * math.prod(block.stride for block in layout.blocks)
        if layout.padding == "even" and min(image.shape[1:3]) < smallest:  # sides are rounded down
            height, width = image.shape[1:3]
            raise InputError(f"image.size is {height} {width}; this network needs at least {smallest} pixels a side")
        x = activate(_conv_norm(self, image, "stem", layout.stem_width, 3, 2, layout.padding))
        for number, block in enumerate(layout.blocks):
            name = f"block_{number}"
            x = InvertedResidual(block, layout.activation, self.norm, self.dtype, self.convolution, name=name)(x)
        return activate(_conv_norm(self, x, "head", layout.head_width, 1)) if layout.head_width else x
