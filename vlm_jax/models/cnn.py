"""What turns images into grids of features: CNNs, transformers, or plain patches."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from vlm_jax.config import encoders
from vlm_jax.config.architecture import Architecture
from vlm_jax.models.convnext import ConvNeXt
from vlm_jax.models.convolution import NORMS, Conv
from vlm_jax.models.image_token_vectors import ImageTokenVectors
from vlm_jax.models.inverted_residual import InvertedResiduals
from vlm_jax.models.mobile_networks import layout_of
from vlm_jax.models.resnet import ResNet
from vlm_jax.models.vit import VisionTransformer, cut_patches


class SmallCNN(nn.Module):
    """A stem convolution, then stages that halve height and width: a strided convolution and residual blocks."""

    settings: encoders.SmallCNN
    dtype: jnp.dtype
    convolution: str = "auto"

    @nn.compact
    def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B gh gw C"]:
        s = self.settings

        def conv(x, name, features, stride=1):
            x = Conv(features, 3, stride, self.convolution, self.dtype, name=f"{name}_conv")(x)
            return NORMS[s.norm](name=f"{name}_norm")(x)

        x = jax.nn.relu(conv(image, "stem", s.stem_width, s.stem_stride))
        for stage, (width, blocks) in enumerate(zip(s.widths, s.blocks, strict=True)):
            x = jax.nn.relu(conv(x, f"stage_{stage}_down", width, 2))
            for block in range(blocks):
                name = f"stage_{stage}_block_{block}"
                inner = jax.nn.relu(conv(x, f"{name}_1", width))
                x = jax.nn.relu(x + conv(inner, f"{name}_2", width))
        return x


class Patches(nn.Module):
    """The image cut into squares of p = `patch_size` pixels, each flattened row by row, colours last.

    Together with the linear projection that `FeatureFusion` gives every grid, ViLT's stem (Kim et al. 2021, section 3).
    No parameters. Sides that are no multiple of p are filled up at the bottom and right with zeros, the mean colour.
    """

    settings: encoders.Patches
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B gh gw C"]:
        p = self.settings.patch_size
        padded = jnp.pad(image, ((0, 0), (0, -image.shape[1] % p), (0, -image.shape[2] % p), (0, 0)))
        return cut_patches(padded, p).astype(self.dtype)


class ImageTokenEmbedding(nn.Module):
    """A vector for each image token of an image tokenizer, in a grid or in a row; the last one is that of a mask token.

    A convolution over the eight neighbours of a grid position comes before the trunk. It learns that edges continue
    much sooner than attention, which first has to learn which positions are near. (For pixels: Xiao et al. 2021, Early
    convolutions help transformers see better.) Under the pattern `autoregressive` there is none: it would look ahead.
    """

    settings: Architecture

    @nn.compact
    def __call__(self, tokens: Int[Array, "B *grid"]) -> Float[Array, "B *grid C"]:
        s, dtype = self.settings, jnp.dtype(self.settings.dtype)
        # Of the size of the positions that are added.
        vectors = ImageTokenVectors(s.image.quantizer, s.hidden_size, std=1.0, mask_token=True, name="vectors")
        x = vectors.embed(tokens).astype(dtype)
        if s.attention_pattern == "autoregressive":
            return x
        around = Conv(s.hidden_size, 3, 1, s.convolution, dtype, name="around")(x)
        return x + nn.Dense(s.hidden_size, dtype=dtype, name="mix")(jax.nn.relu(around))


def make_image_encoder(
    settings: encoders.PixelEncoder,
    dtype: jnp.dtype,
    convolution: str = "auto",
    *,
    remat: bool = False,
    scan_layers: bool = False,
) -> nn.Module:
    """The image encoder of a config, unbound; `remat` and `scan_layers` are for the layers of a transformer."""
    match settings:
        case encoders.VisionTransformer():
            return VisionTransformer(settings, dtype, remat, scan_layers)
        case encoders.SmallCNN():
            return SmallCNN(settings, dtype, convolution)
        case encoders.Patches():
            return Patches(settings, dtype)
        case encoders.ResNet():
            return ResNet(settings.custom, dtype, convolution)
        case encoders.CustomResNet():
            return ResNet(settings, dtype, convolution)
        case encoders.ConvNeXt():
            return ConvNeXt(settings, dtype, convolution)
    return InvertedResiduals(layout_of(settings), settings.norm, dtype, convolution)
