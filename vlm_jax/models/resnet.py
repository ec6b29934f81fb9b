"""ResNets (He et al. 2016), version 1.5: the stride of a bottleneck stands on its 3x3 convolution."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from vlm_jax.config.encoders import Norm
from vlm_jax.models.convolution import NORMS, Conv, max_pool


class BasicBlock(nn.Module):
    """Two 3x3, and a shortcut that is projected where the shape changes; `width` channels come out."""

    width: int
    stride: int
    norm: Norm
    dtype: jnp.dtype
    convolution: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B H W F"]:
        shortcut = _shortcut(self, x, self.width)
        y = jax.nn.relu(_conv_norm(self, x, "1", self.width, 3, self.stride))
        return jax.nn.relu(_conv_norm(self, y, "2", self.width, 3) + shortcut)


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up, and a shortcut that is projected where the shape changes; 4 `width` channels come out."""

    width: int
    stride: int
    norm: Norm
    dtype: jnp.dtype
    convolution: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B H W F"]:
        out = 4 * self.width
        shortcut = _shortcut(self, x, out)
        y = jax.nn.relu(_conv_norm(self, x, "1", self.width, 1))
        y = jax.nn.relu(_conv_norm(self, y, "2", self.width, 3, self.stride))
        return jax.nn.relu(_conv_norm(self, y, "3", out, 1) + shortcut)


def _shortcut(block, x, features):
    if x.shape[-1] == features and block.stride == 1:
        return x
    return _conv_norm(block, x, "shortcut", features, 1, block.stride)


def _conv_norm(block, x, name, features, size, stride=1):
    """A convolution and its norm, `conv_NAME` and `norm_NAME` of the block."""
    x = Conv(features, size, stride, block.convolution, block.dtype, name=f"conv_{name}")(x)
    return NORMS[block.norm](name=f"norm_{name}")(x)


class ResNet(nn.Module):
    """Pixels [B, h, w, 3] to the last stage's grid [B, h / 32, w / 32, C] (four stages), both rounded up.

    C is 512 with basic blocks and 2048 with bottlenecks. `depths` counts the blocks of each stage.
    """

    block: type[nn.Module]
    depths: tuple[int, ...]
    norm: Norm
    dtype: jnp.dtype
    convolution: str = "auto"

    @nn.compact
    def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B gh gw C"]:
        x = Conv(64, 7, 2, self.convolution, self.dtype, name="stem_conv")(image)
        x = max_pool(jax.nn.relu(NORMS[self.norm](name="stem_norm")(x)))
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage_{stage + 1}_block_{block}"
                x = self.block(64 * 2**stage, stride, self.norm, self.dtype, self.convolution, name=name)(x)
        return x


# The kind of block, and the blocks of each stage: table 1 of the paper.
RESNETS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}
