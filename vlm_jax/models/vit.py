"""A pre-norm transformer over patches: ViT (Dosovitskiy et al. 2021), and what DeiT, DINOv2, CLIP and SigLIP change.

Layers are `BertLayer` with `pre_norm`. Positions are a learned table of one image size; for images of another size
those of the patches are interpolated as PyTorch does it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from vlm_jax.config import encoders
from vlm_jax.config.layers import LayerStack
from vlm_jax.errors import InputError
from vlm_jax.models.bert import EMBEDDING_INIT, BertLayer, layer_norm
from vlm_jax.models.fusion import encode


class ImageFeatures(NamedTuple):
    """What a transformer computes of images; tokens are those before the patches, then the patches."""

    tokens: Float[Array, "B N D"]
    """With the last layer norm where that is for every token."""
    grid: Float[Array, "B gh gw D"]
    """The tokens of patches, as they stand in the image."""
    class_token: Float[Array, "B D"] | None
    """With the last layer norm; None where there is none."""
    mean: Float[Array, "B D"]
    """Of the tokens of patches."""


def cut_patches(image: Float[Array, "B h w c"], side: int) -> Float[Array, "B gh gw p"]:
    """The image as squares, each flattened row by row, colours last; pixels that fill none are left out."""
    batch, height, width, colours = image.shape
    rows, columns = height // side, width // side
    image = image[:, : rows * side, : columns * side]
    squares = image.reshape(batch, rows, side, columns, side, colours).transpose(0, 1, 3, 2, 4, 5)
    return squares.reshape(batch, rows, columns, side * side * colours)


def interpolate_positions(
    table: Float[Array, "P D"], *, before: int, source: tuple[int, int], target: tuple[int, int]
) -> Float[Array, "Q D"]:
    """A table of positions for another grid; the first rows, `before` the grid's, stay.

    Bicubic with a = -0.75 and without antialiasing, as `torch.nn.functional.interpolate(mode="bicubic")`.
    """
    if source == target:
        return table
    grid = table[before:].reshape(*source, -1)
    grid = jax.image.resize(grid, (*target, grid.shape[-1]), "cubic-pytorch", antialias=False)
    return jnp.concatenate([table[:before], grid.reshape(-1, grid.shape[-1])])


def layer_stack(
    settings: encoders.VisionTransformer, dtype: jnp.dtype, *, remat: bool = False, scan_layers: bool = False
) -> LayerStack:
    """The settings of its layers."""
    shared = {name: getattr(settings, name) for name in LayerStack.model_fields if hasattr(settings, name)}
    return LayerStack(**shared, pre_norm=True, dtype=dtype.name, remat=remat, scan_layers=scan_layers)


class ImageEmbeddings(nn.Module):
    """Pixels to the tokens that the first layer reads: projected patches after learned tokens, with positions."""

    settings: encoders.VisionTransformer
    layers: LayerStack

    @nn.compact
    def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B N D"]:
        s, width, dtype = self.settings, self.layers.hidden_size, jnp.dtype(self.layers.dtype)
        grid, source = grid_size(s, image), s.grid_size(s.image_size or image.shape[1:3])
        before = s.class_token + s.distillation_token
        patches = cut_patches(image, s.patch_size).reshape(len(image), grid[0] * grid[1], -1)
        tokens = nn.Dense(width, use_bias=s.patch_bias, dtype=dtype, name="patches")(patches)
        if before:
            first = nn.Embed(before, width, embedding_init=EMBEDDING_INIT, name="tokens").embedding
            first = jnp.broadcast_to(first.astype(dtype), (len(image), *first.shape))
            tokens = jnp.concatenate([first, tokens], axis=1)
        positions = nn.Embed(before + source[0] * source[1], width, embedding_init=EMBEDDING_INIT, name="positions")
        table = interpolate_positions(jnp.asarray(positions.embedding), before=before, source=source, target=grid)
        tokens = tokens + table.astype(dtype)[None]
        return layer_norm(self.layers, "norm")(tokens) if s.embedding_norm else tokens


def grid_size(settings: encoders.VisionTransformer, image: Float[Array, "B h w c"]) -> tuple[int, int]:
    """Rows and columns of patches of images; `InputError` where patches do not divide them."""
    try:
        return settings.grid_size(image.shape[1:3])
    except ValueError as error:
        raise InputError(str(error)) from None


class VisionTransformer(nn.Module):
    """Pixels to what `settings.output` says, as a grid of features: one of 1 x 1 for a single vector."""

    settings: encoders.VisionTransformer
    dtype: jnp.dtype
    remat: bool = False
    scan_layers: bool = False

    def setup(self) -> None:
        layers = layer_stack(self.settings, self.dtype, remat=self.remat, scan_layers=self.scan_layers)
        self.embed = ImageEmbeddings(self.settings, layers)
        for index in range(layers.num_layers):
            setattr(self, f"layer_{index}", BertLayer(layers))
        self.norm = layer_norm(layers)

    def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B gh gw D"]:
        features, output = self.features(image), self.settings.output
        return features.grid if output == "grid" else getattr(features, output)[:, None, None]

    def features(self, image: Float[Array, "B h w 3"]) -> ImageFeatures:
        """Everything that the layers compute."""
        s, grid = self.settings, grid_size(self.settings, image)
        tokens = self.embed(image)[:, None]
        mask = jnp.ones((len(image), 1, tokens.shape[2], tokens.shape[2]), bool)
        layers = [getattr(self, f"layer_{index}") for index in range(s.num_layers)]
        tokens = encode(layers, tokens, mask, None)[:, 0]
        if s.final_norm == "every_token":
            tokens = self.norm(tokens)
        patches = tokens[:, s.class_token + s.distillation_token :]
        class_token = tokens[:, 0] if s.class_token else None
        if s.final_norm == "class_token":
            class_token = self.norm(class_token)
        return ImageFeatures(tokens, patches.reshape(len(image), *grid, -1), class_token, jnp.mean(patches, axis=1))
