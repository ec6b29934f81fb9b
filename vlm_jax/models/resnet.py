"""ResNets (He et al. 2016): version 1.5, whose bottlenecks have their stride on the 3x3 convolution, or version 1."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from vlm_jax.config.encoders import CustomResNet
from vlm_jax.models.convolution import NORMS, Conv, max_pool


class Block(nn.Module):
    """The convolutions of a block and a shortcut, which is projected where the shape changes."""

    settings: CustomResNet
    stage: int
    stride: int
    dtype: jnp.dtype
    convolution: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B H W F"]:
        s, inner, out = self.settings, self.settings.inner_width(self.stage), self.settings.hidden_sizes[self.stage]
        shortcut = x
        if x.shape[-1] != out or self.stride > 1:
            shortcut = self.conv_norm(x, "shortcut", out, 1, self.stride)
        if s.layer_type == "basic":
            y = jax.nn.relu(self.conv_norm(x, "1", inner, 3, self.stride))
            return jax.nn.relu(self.conv_norm(y, "2", out, 3) + shortcut)
        strides = (self.stride, 1) if s.downsample_in_bottleneck else (1, self.stride)
        y = jax.nn.relu(self.conv_norm(x, "1", inner, 1, strides[0]))
        y = jax.nn.relu(self.conv_norm(y, "2", inner, 3, strides[1], s.groups))
        return jax.nn.relu(self.conv_norm(y, "3", out, 1) + shortcut)

    def conv_norm(
        self, x: Float[Array, "B h w C"], name: str, features: int, size: int, stride: int = 1, groups: int = 1
    ) -> Float[Array, "B H W F"]:
        """A convolution and its norm, `conv_NAME` and `norm_NAME`."""
        conv = Conv(features, size, stride, self.convolution, self.dtype, groups=groups, name=f"conv_{name}")
        return NORMS[self.settings.norm](name=f"norm_{name}")(conv(x))


class ResNet(nn.Module):
    """Pixels [B, h, w, 3] to the last stage's grid [B, h / 32, w / 32, C] (four stages), both rounded up."""

    settings: CustomResNet
    dtype: jnp.dtype
    convolution: str = "auto"

    @nn.compact
    def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B gh gw C"]:
        s = self.settings
        x = Conv(s.embedding_size, 7, 2, self.convolution, self.dtype, name="stem_conv")(image)
        x = max_pool(jax.nn.relu(NORMS[s.norm](name="stem_norm")(x)))
        for stage, depth in enumerate(s.depths):
            for block in range(depth):
                stride = 2 if block == 0 and (stage > 0 or s.downsample_in_first_stage) else 1
                name = f"stage_{stage + 1}_block_{block}"
                x = Block(s, stage, stride, self.dtype, self.convolution, name=name)(x)
        return x
