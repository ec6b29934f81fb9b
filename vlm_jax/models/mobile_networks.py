"""The blocks of MobileNetV2 (Sandler et al. 2018), EfficientNet (Tan and Le 2019) and EfficientNet-Lite0.

Widths, depths and padding are those that transformers computes (modeling_mobilenet_v2.py, modeling_efficientnet.py).
"""

import math
from typing import NamedTuple

from vlm_jax.config.encoders import EfficientNet, EfficientNetLite0, MobileNetV2
from vlm_jax.models.inverted_residual import Block, Layout

STEM_WIDTH, HEAD_WIDTH = 32, 1280
SQUEEZE_RATIO = 0.25


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
# Table 1 of Tan and Le 2019 (B0), the strides from its resolutions.
EFFICIENTNET = (
    Row(1, 16, 1, 1, 3),
    Row(6, 24, 2, 2, 3),
    Row(6, 40, 2, 2, 5),
    Row(6, 80, 3, 2, 3),
    Row(6, 112, 3, 1, 5),
    Row(6, 192, 4, 2, 5),
    Row(6, 320, 1, 1, 3),
)


def layout_of(settings: MobileNetV2 | EfficientNet | EfficientNetLite0) -> Layout:
    """The layers of a network."""
    match settings:
        case MobileNetV2():
            return _mobilenet_v2(settings)
        case EfficientNet():
            return _efficientnet(settings)
    return _efficientnet_lite0()


def _mobilenet_v2(settings: MobileNetV2) -> Layout:
    def scaled(width: int) -> int:
        return to_eights(round(width * settings.depth_multiplier))

    padding = "same" if settings.tf_padding else "symmetric"
    blocks, width = [], scaled(STEM_WIDTH)
    for row in MOBILENET_V2:
        for place in range(row.depth):
            stride, out, expands = row.stride if place == 0 else 1, scaled(row.width), row.expansion > 1
            adds_input = expands and stride == 1 and width == out  # never the stem's block, whatever its widths are
            blocks.append(Block(row.expansion * width, out, stride, row.kernel_size, padding, expands, adds_input))
            width = out
    fine = settings.finegrained_output and settings.depth_multiplier < 1
    return Layout(scaled(STEM_WIDTH), tuple(blocks), HEAD_WIDTH if fine else scaled(HEAD_WIDTH), padding, "relu6")


def _efficientnet(settings: EfficientNet) -> Layout:
    def scaled(width: int) -> int:
        return to_eights(width * settings.width_coefficient)

    blocks, width = [], scaled(STEM_WIDTH)
    for row in EFFICIENTNET:
        for place in range(math.ceil(settings.depth_coefficient * row.depth)):
            stride, out = row.stride if place == 0 else 1, scaled(row.width)
            padding = "symmetric" if len(blocks) in settings.depthwise_padding else "even"
            # Of the channels that come in, whatever the expansion is.
            squeeze_width = max(1, int(width * SQUEEZE_RATIO))
            inner, expands = row.expansion * width, row.expansion > 1
            blocks.append(Block(inner, out, stride, row.kernel_size, padding, expands, place > 0, squeeze_width))
            width = out
    head_width = scaled(HEAD_WIDTH) if settings.top_convolution else 0
    return Layout(scaled(STEM_WIDTH), tuple(blocks), head_width, "even", "swish")


def _efficientnet_lite0() -> Layout:
    """B0 without squeeze-and-excitation, with ReLU6 (github.com/tensorflow/tpu, models/official/efficientnet/lite)."""
    blocks, width = [], STEM_WIDTH
    for row in EFFICIENTNET:
        for place in range(row.depth):
            stride, expands = row.stride if place == 0 else 1, row.expansion > 1
            block = Block(row.expansion * width, row.width, stride, row.kernel_size, "same", expands, place > 0)
            blocks.append(block)
            width = row.width
    return Layout(STEM_WIDTH, tuple(blocks), HEAD_WIDTH, "same", "relu6")


def to_eights(width: int | float) -> int:
    """The nearest multiple of 8, at least 8 and no less than 0.9 of the width."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest
