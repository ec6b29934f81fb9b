"""Projections of image and text features into the trunk's width, with image positions and one layer norm."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from vlm_jax.config.architecture import Architecture
from vlm_jax.errors import InputError
from vlm_jax.models.attention import dropout
from vlm_jax.models.bert import ACTIVATIONS, EMBEDDING_INIT, layer_norm
from vlm_jax.models.ids import check_ids


def identity_or_lecun(key: Key[Array, ""], shape: tuple[int, int], dtype: DTypeLike = jnp.float32) -> Array:
    """The identity where the matrix is square, so that a fresh `text_fc` leaves BERT's embeddings as they are."""
    if shape[0] == shape[1]:
        return jnp.eye(shape[0], dtype=dtype)
    return nn.initializers.lecun_normal()(key, shape, dtype)


def sine_cosine(
    key: Key[Array, ""], shape: tuple[int, int], dtype: DTypeLike = jnp.float32, *, half: int
) -> Float[Array, "n D"]:
    """Sines and cosines of the position (Vaswani et al. 2017, section 3.5) in one half of the width, zero in the other.

    Rows in the first half and columns in the second: summed, they are the 2-D positions of He et al. 2022 (MAE). Unlike
    random vectors of BERT's std, 0.02, they are as large as the features they are added to.
    """
    positions, width = shape
    pairs = width // 4
    frequency = 10_000.0 ** -(jnp.arange(pairs) / max(pairs, 1))
    angle = jnp.arange(positions)[:, None] * frequency[None]
    waves = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    before = half * (width - waves.shape[1])
    return jnp.pad(waves, ((0, 0), (before, width - before - waves.shape[1]))).astype(dtype)


class FeatureFusion(nn.Module):
    """Projects image and text features to the trunk's width and gives both one layer norm, as VisualBERT does.

    The image gets learned positions and a segment of its own; text features carry theirs already. Without an image the
    image stream is empty. Grid features [I, n, C] of a part of the image come with the shape of its `grid`
    and the place of the first, in reading order. Without `image_segments` every position has the last one.

    Without `text_fc` text features of the trunk's width go to the layer norm as they are: BERT has no such matrix.
    """

    settings: Architecture
    text_fc: bool = True

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "I gh gw C"] | Float[Array, "I G C"] | None,
        text: Float[Array, "I K T E"],
        keys: Key[Array, " I"] | None = None,
        *,
        grid: tuple[int, int] | None = None,
        start: Int[Array, ""] | int = 0,
        image_segments: Int[Array, "I G"] | None = None,
    ) -> tuple[Float[Array, "I 1 G D"], Float[Array, "I K T D"]]:
        s = self.settings
        dtype = jnp.dtype(s.dtype)
        norm = layer_norm(s, "norm")
        if self.text_fc:
            text = nn.Dense(s.hidden_size, dtype=dtype, kernel_init=identity_or_lecun, name="text_fc")(text)
        text = dropout(norm(text), s.hidden_dropout_prob, keys, 2)
        if image is None:
            return jnp.zeros((len(text), 1, 0, s.hidden_size), dtype), text
        positions = self._positions(grid or image.shape[1:-1])
        image = image.reshape(len(image), -1, image.shape[-1])
        if grid is not None:
            positions = jax.lax.dynamic_slice_in_dim(positions, start, image.shape[1])
        image = nn.Dense(s.hidden_size, dtype=dtype, name="image_fc")(image)
        if s.image.projection == "mlp":  # Liu et al. 2024, arXiv:2310.03744, section 3.3
            image = nn.Dense(s.hidden_size, dtype=dtype, name="image_out")(ACTIVATIONS["gelu"](image))
        # The last row is the image's, as VisualBERT's table has it.
        segments = self.param("image_segment", EMBEDDING_INIT, (s.modality_type_vocab_size, s.hidden_size))
        if image_segments is None:
            added = (positions + segments[-1][None])[None]
        else:
            check_ids(image_segments, s.modality_type_vocab_size, "image token type")
            added = positions[None] + segments[image_segments]
        image = norm((image + added.astype(dtype))[:, None])
        return dropout(image, s.hidden_dropout_prob, keys, 1), text

    def _positions(self, shape: tuple[int, ...]) -> Float[Array, "G D"]:
        """One vector a grid position, rows first."""
        s = self.settings
        if s.image.positions in ("sequence", "shared"):
            indices = self._within(math.prod(shape), "grid positions")
            indices = jnp.zeros_like(indices) if s.image.positions == "shared" else indices
            return nn.Embed(s.max_image_positions, s.hidden_size, embedding_init=EMBEDDING_INIT, name="image_position")(
                indices
            )
        if len(shape) != 2:
            raise InputError(
                "model.image.positions 'grid' needs grid features [I, gh, gw, C], and [I, G, C] came; "
                "give the grid, or choose 'sequence'"
            )
        by_row, by_column = (
            nn.Embed(
                s.max_image_positions,
                s.hidden_size,
                embedding_init=partial(sine_cosine, half=half),
                name=f"image_{name}",
            )(self._within(count, f"{name}s"))
            for half, (name, count) in enumerate(zip(("row", "column"), shape, strict=True))
        )
        return (by_row[:, None] + by_column[None]).reshape(-1, s.hidden_size)

    def _within(self, count: int, what: str) -> Int[Array, " n"]:
        most = self.settings.max_image_positions
        if count > most:
            raise InputError(
                f"the image grid has {count} {what}, model.layout.max_image_positions is {most}; raise the latter"
            )
        return jnp.arange(count)
