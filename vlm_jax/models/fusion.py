"""Where image and text meet: projections into one width, then a trunk behind one interface.

Every fusion maps `(image, text, image_mask, text_mask, keys)` to `(image, text)`; heads do not know which one ran.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Key

from vlm_jax.config import Model
from vlm_jax.errors import InputError
from vlm_jax.models.attention import IMAGE, NONE, PATTERNS, TEXT, attention_mask, dropout, fold_keys
from vlm_jax.models.bert import EMBEDDING_INIT, BertLayer, layer_norm

Streams = tuple[Float[Array, "I k g D"], Float[Array, "I K t D"]]


def identity_or_lecun(key: Key[Array, ""], shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
    """The identity where the matrix is square, so that a fresh `text_fc` leaves BERT's embeddings as they are."""
    if shape[0] == shape[1]:
        return jnp.eye(shape[0], dtype=dtype)
    return nn.initializers.lecun_normal()(key, shape, dtype)


class FeatureFusion(nn.Module):
    """Projects image and text features to the trunk's width and gives both one layer norm, as VisualBERT does.

    The image gets learned positions and a segment of its own; text features carry theirs already.
    """

    settings: Model

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "I G C"],
        text: Float[Array, "I K T E"],
        keys: Key[Array, " I"] | None = None,
    ) -> Streams:
        s = self.settings
        dtype = jnp.dtype(s.compute_dtype)
        cells = image.shape[1]
        if cells > s.image.max_positions:
            raise InputError(
                f"the image grid has {cells} cells, model.image.max_positions is {s.image.max_positions}; "
                "raise the latter"
            )
        image = nn.Dense(s.width, dtype=dtype, name="image_fc")(image)
        position = nn.Embed(s.image.max_positions, s.width, embedding_init=EMBEDDING_INIT, name="image_position")
        segment = self.param("image_segment", EMBEDDING_INIT, (s.width,))
        image = image + (position(jnp.arange(cells)) + segment[None]).astype(dtype)[None]
        text = nn.Dense(s.width, dtype=dtype, kernel_init=identity_or_lecun, name="text_fc")(text)
        norm = layer_norm(s, "norm")
        image, text = norm(image[:, None]), norm(text)
        return dropout(image, s.dropout, keys, 1), dropout(text, s.dropout, keys, 2)


class ConcatFusion(nn.Module):
    """One sequence, image first, through one BERT trunk (VisualBERT, Pixel-BERT).

    Where the pattern hides text from the image, the image side is the same for every question of a picture: it is
    computed once, and the text reads its keys and values. The result equals the concatenated computation.
    """

    settings: Model

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "I 1 G D"],
        text: Float[Array, "I K T D"],
        image_mask: Bool[Array, "I G"],
        text_mask: Bool[Array, "I K T"],
        keys: Key[Array, " I"] | None = None,
        first_only: bool = False,
    ) -> Streams:
        """With `first_only` the last layer computes the first text position alone: [I, k, 0, D] and [I, K, 1, D]."""
        s = self.settings
        cells, slots = image.shape[2], text.shape[1]
        kind = jnp.array([IMAGE] * cells + [TEXT] * text.shape[2])
        image_valid = jnp.broadcast_to(image_mask[:, None], (len(image), slots, cells))
        mask = attention_mask(s.pattern, kind, jnp.concatenate([image_valid, text_mask], axis=-1))
        if PATTERNS[s.pattern][IMAGE][TEXT] == NONE:
            asking = slice(1) if first_only else slice(None)
            image, text = self._layers(_shared_image_layer, (image, text), mask, keys, asking)
            return image[:, :, : 0 if first_only else cells], text
        whole = jnp.concatenate([jnp.broadcast_to(image, (*text.shape[:2], *image.shape[2:])), text], axis=2)
        asking = slice(cells, cells + 1) if first_only else slice(None)
        (whole,) = self._layers(_whole_layer, (whole,), mask, keys, asking)
        cells = 0 if first_only else cells
        return whole[:, :, :cells], whole[:, :, cells:]

    def _layers(self, step, streams, mask, keys, asking):
        """`step` through every layer: unrolled, or scanned over stacked weights; recomputed backwards with `remat`.

        Parameters keep one layout, `layer_0`, `layer_1`, ..., whichever way they are run.
        """
        s = self.settings
        layers = [BertLayer(s, name=f"layer_{i}") for i in range(s.layers)]
        if self.is_initializing():
            for index, layer in enumerate(layers):
                streams = step(layer, streams, mask, fold_keys(keys, index), slice(None))
            return streams

        def apply(streams, weights_and_index, asking=slice(None)):
            weights, index = weights_and_index
            layer = BertLayer(s, parent=None).bind({"params": weights})
            return step(layer, streams, mask, fold_keys(keys, index), asking), None

        def recomputed(asking=slice(None)):
            once = partial(apply, asking=asking)
            return jax.checkpoint(once) if s.remat else once

        *weights, last = [self.variables["params"][layer.name] for layer in layers]
        if s.scan_layers and weights:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights)
            streams = jax.lax.scan(recomputed(), streams, (stacked, jnp.arange(len(weights))))[0]
        else:
            for index, layer_weights in enumerate(weights):
                streams, _ = recomputed()(streams, (layer_weights, index))
        return recomputed(asking)(streams, (last, s.layers - 1))[0]


def _whole_layer(layer, streams, mask, keys, asking):
    return (layer(streams[0], mask, None, keys, asking)[0],)


def _shared_image_layer(layer, streams, mask, keys, asking):
    image, text = streams
    cells = image.shape[2]
    image, memory = layer(image, mask[:, :1, :cells, :cells], None, fold_keys(keys, IMAGE))
    text, _ = layer(text, mask[:, :, cells:], memory, fold_keys(keys, TEXT), asking)
    return image, text


FUSIONS = {"concat": ConcatFusion}
