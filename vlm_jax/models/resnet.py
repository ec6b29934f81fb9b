"""ResNet-50 (He et al. 2016), version 1.5: the stride of a block stands on its 3x3 convolution."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from vlm_jax.config import ImageEncoder
from vlm_jax.models.convolution import NORMS, Conv, max_pool

DEPTHS = (3, 4, 6, 3)  # table 1 of the paper
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up, and a shortcut that is projected where the shape changes."""

    width: int
    stride: int
    settings: ImageEncoder
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B H W F"]:
        def conv(x, name, features, size, stride=1):
            x = Conv(features, size, stride, self.settings.convolution, self.dtype, name=f"conv_{name}")(x)
            return NORMS[self.settings.norm](name=f"norm_{name}")(x)

        out = self.width * EXPANSION
        shortcut = x
        if x.shape[-1] != out or self.stride != 1:
            shortcut = conv(x, "shortcut", out, 1, self.stride)
        y = jax.nn.relu(conv(x, "1", self.width, 1))
        y = jax.nn.relu(conv(y, "2", self.width, 3, self.stride))
        return jax.nn.relu(conv(y, "3", out, 1) + shortcut)


class ResNet50(nn.Module):
    """Pixels [B, h, w, 3] to the last stage's grid [B, h / 32, w / 32, 2048]."""

    settings: ImageEncoder
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B gh gw C"]:
        s = self.settings
        x = Conv(64, 7, 2, s.convolution, self.dtype, name="stem_conv")(image)
        x = max_pool(jax.nn.relu(NORMS[s.norm](name="stem_norm")(x)))
        for stage, depth in enumerate(DEPTHS):
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage_{stage + 1}_block_{block}"
                x = Bottleneck(64 * 2**stage, stride, s, self.dtype, name=name)(x)
        return x
