"""Where image and text meet: projections into one width, then a trunk behind one interface.

Every fusion maps `(image, text, image_mask, text_mask, keys)` to `(image, text)`; heads do not know which one ran.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Key

from vlm_jax.config import Model
from vlm_jax.errors import InputError
from vlm_jax.models.attention import IMAGE, NONE, PATTERNS, TEXT, attention_mask, dropout, fold_keys
from vlm_jax.models.bert import EMBEDDING_INIT, BertLayer, layer_norm

Streams = tuple[Float[Array, "I k G D"], Float[Array, "I K T D"]]


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
    ) -> Streams:
        s = self.settings
        cells, slots = image.shape[2], text.shape[1]
        kind = jnp.array([IMAGE] * cells + [TEXT] * text.shape[2])
        image_valid = jnp.broadcast_to(image_mask[:, None], (len(image), slots, cells))
        mask = attention_mask(s.pattern, kind, jnp.concatenate([image_valid, text_mask], axis=-1))
        if PATTERNS[s.pattern][IMAGE][TEXT] == NONE:
            return self._layers(_shared_image_layer, (image, text), mask, keys)
        whole = jnp.concatenate([jnp.broadcast_to(image, (*text.shape[:2], *image.shape[2:])), text], axis=2)
        (whole,) = self._layers(_whole_layer, (whole,), mask, keys)
        return whole[:, :, :cells], whole[:, :, cells:]

    def _layers(self, step, streams, mask, keys):
        """`step` through every layer: unrolled, or scanned over stacked weights; recomputed backwards with `remat`.

        Parameters keep one layout, `layer_0`, `layer_1`, ..., whichever way they are run.
        """
        s = self.settings
        layers = [BertLayer(s, name=f"layer_{i}") for i in range(s.layers)]
        if self.is_initializing():
            for index, layer in enumerate(layers):
                streams = step(layer, streams, mask, fold_keys(keys, index))
            return streams

        def apply(streams, weights_and_index):
            weights, index = weights_and_index
            layer = BertLayer(s, parent=None).bind({"params": weights})
            return step(layer, streams, mask, fold_keys(keys, index)), None

        apply = jax.checkpoint(apply) if s.remat else apply
        weights = [self.variables["params"][layer.name] for layer in layers]
        if s.scan_layers:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights)
            return jax.lax.scan(apply, streams, (stacked, jnp.arange(s.layers)))[0]
        for index, layer_weights in enumerate(weights):
            streams, _ = apply(streams, (layer_weights, index))
        return streams


def _whole_layer(layer, streams, mask, keys):
    return (layer(streams[0], mask, None, keys)[0],)


def _shared_image_layer(layer, streams, mask, keys):
    image, text = streams
    cells = image.shape[2]
    image, memory = layer(image, mask[:, :1, :cells, :cells], None, fold_keys(keys, IMAGE))
    text, _ = layer(text, mask[:, :, cells:], memory, fold_keys(keys, TEXT))
    return image, text


FUSIONS = {"concat": ConcatFusion}
