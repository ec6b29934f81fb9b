"""CNNs that turn pictures into grids of features."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from vlm_jax.config import ImageEncoder
from vlm_jax.models.convolution import NORMS, Conv
from vlm_jax.models.resnet import ResNet50


class SmallCNN(nn.Module):
    """A stem convolution, then stages that halve height and width: a strided convolution and residual blocks."""

    settings: ImageEncoder
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B gh gw C"]:
        s = self.settings

        def conv(x, name, features, stride=1):
            x = Conv(features, 3, stride, s.convolution, self.dtype, name=f"{name}_conv")(x)
            return NORMS[s.norm](name=f"{name}_norm")(x)

        x = jax.nn.relu(conv(image, "stem", s.stem_width, s.stem_stride))
        for stage, (width, blocks) in enumerate(zip(s.widths, s.blocks, strict=True)):
            x = jax.nn.relu(conv(x, f"stage_{stage}_down", width, 2))
            for block in range(blocks):
                name = f"stage_{stage}_block_{block}"
                inner = jax.nn.relu(conv(x, f"{name}_1", width))
                x = jax.nn.relu(x + conv(inner, f"{name}_2", width))
        return x


def make_cnn(settings: ImageEncoder, dtype: jnp.dtype) -> nn.Module:
    """The CNN of a config, unbound."""
    return CNNS[settings.cnn](settings, dtype)


CNNS = {"small": SmallCNN, "resnet50": ResNet50}
