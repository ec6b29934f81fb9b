"""ConvNeXt (Liu et al. 2022): stages of depthwise convolutions and feed-forward layers, halved by 2x2 patches."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from vlm_jax.config import encoders
from vlm_jax.errors import InputError
from vlm_jax.models.convolution import DepthwiseConv
from vlm_jax.models.vit import cut_patches

EPSILON = 1e-6  # of every layer norm inside the network
LAYER_SCALE = 1e-6  # where training starts


class Block(nn.Module):
    """A 7x7 depthwise convolution, a layer norm and a feed-forward layer, scaled by channel and added to the input."""

    layer_scale: bool
    dtype: jnp.dtype
    convolution: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        width = x.shape[-1]
        y = DepthwiseConv(7, 1, self.convolution, self.dtype, use_bias=True, name="depthwise_conv")(x)
        y = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="norm")(y)
        y = nn.Dense(4 * width, dtype=self.dtype, name="intermediate")(y)
        y = nn.Dense(width, dtype=self.dtype, name="output")(jax.nn.gelu(y, approximate=False))
        if self.layer_scale:
            scale = self.param("scale", nn.initializers.constant(LAYER_SCALE), (width,)).astype(y.dtype)
            y = y * scale[None, None, None]
        return x + y


class ConvNeXt(nn.Module):
    """Pixels [B, h, w, 3] to the last stage's grid; rows and columns that fill no patch are left out."""

    settings: encoders.ConvNeXt
    dtype: jnp.dtype
    convolution: str = "auto"

    @nn.compact
    def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B gh gw C"]:
        s = self.settings
        smallest = s.patch_size * 2 ** (len(s.depths) - 1)
        if min(image.shape[1:3]) < smallest:
            height, width = image.shape[1:3]
            raise InputError(f"image.size is {height} {width}; this convnext needs at least {smallest} pixels a side")
        x = self.patches(image.astype(self.dtype), "stem", s.patch_size, s.hidden_sizes[0])
        x = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="stem_norm")(x)
        for stage, (depth, width) in enumerate(zip(s.depths, s.hidden_sizes, strict=True), start=1):
            if stage > 1:
                x = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name=f"stage_{stage}_norm")(x)
                x = self.patches(x, f"stage_{stage}_down", 2, width)
            for block in range(depth):
                name = f"stage_{stage}_block_{block}"
                x = Block(s.layer_scale, self.dtype, self.convolution, name=name)(x)
        return x

    def patches(self, x: Float[Array, "B h w C"], name: str, side: int, width: int) -> Float[Array, "B H W F"]:
        """The projection of each patch: a convolution whose stride is its size."""
        height, columns = (n - n % side for n in x.shape[1:3])
        return nn.Dense(width, dtype=self.dtype, name=name)(cut_patches(x[:, :height, :columns], side))
