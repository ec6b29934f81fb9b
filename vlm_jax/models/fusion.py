"""Where image and text meet: four trunks behind one interface.

Every fusion maps `(image, text, image_mask, text_mask, keys, first_only)` to `(image, text)`; heads do not know which
one ran. With `first_only` the last layer computes, of the text, the first position alone. `text_layer` says where the
layers of the text stand, so that a pretrained text encoder can start them.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Key

from vlm_jax.config import Model
from vlm_jax.models.attention import IMAGE, NONE, PATTERNS, TEXT, attention_mask, fold_keys, stream_mask
from vlm_jax.models.bert import BertLayer, CrossLayer

Streams = tuple[Float[Array, "I k g D"], Float[Array, "I K t D"]]
EVERYTHING = slice(None)


def through(
    layers: Sequence[nn.Module],
    step: Callable[..., Any],
    streams: Any,
    keys: Key[Array, " I"] | None,
    *,
    asking: slice = EVERYTHING,
) -> Any:
    """`step(layer, streams, keys, asking)` layer after layer; only the last may compute fewer positions, `asking`.

    The settings of the layers decide how: unrolled, or scanned over stacked weights between the first and the last
    (compiled once), and recomputed in the backward pass with `remat`. Parameters keep one layout.
    """
    settings = layers[0].settings
    wanted = [EVERYTHING] * (len(layers) - 1) + [asking]
    if layers[0].is_initializing() or not (settings.remat or settings.scan_layers):
        for index, (layer, some) in enumerate(zip(layers, wanted, strict=True)):
            streams = step(layer, streams, fold_keys(keys, index), some)
        return streams

    unbound = layers[0].clone(parent=None, name=None)

    def body(some):
        def run(streams, weights_and_index):
            weights, index = weights_and_index
            return step(unbound.bind({"params": weights}), streams, fold_keys(keys, index), some), None

        return jax.checkpoint(run) if settings.remat else run

    weights = [layer.variables["params"] for layer in layers]
    middle = range(1, len(layers) - 1) if settings.scan_layers else range(0)
    for index, some in enumerate(wanted):
        if index not in middle:
            streams, _ = body(some)(streams, (weights[index], index))
        elif index == 1:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(weights[i] for i in middle))
            streams, _ = jax.lax.scan(body(some), streams, (stacked, jnp.array(middle)))
    return streams


def encode(
    layers: Sequence[BertLayer],
    stream: Float[Array, "I k N D"],
    mask: Bool[Array, "I k N N"],
    keys: Key[Array, " I"] | None,
    *,
    asking: slice = EVERYTHING,
) -> Float[Array, "I k n D"]:
    """A stream through BERT layers that read nothing else."""

    def step(layer, stream, keys, asking):
        return layer(stream, mask, None, keys, asking)[0]

    return through(layers, step, stream, keys, asking=asking)


class ConcatFusion(nn.Module):
    """One sequence, image first, through one BERT trunk (VisualBERT, Pixel-BERT).

    Where the pattern hides text from the image, the image side is the same for every question of a picture: it is
    computed once, and the text reads its keys and values. The result equals the concatenated computation.
    """

    settings: Model
    text_layer: ClassVar[str] = "layer_{}"

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
        s = self.settings
        layers = [BertLayer(s, name=f"layer_{i}") for i in range(s.layers)]
        cells, slots = image.shape[2], text.shape[1]
        kind = jnp.array([IMAGE] * cells + [TEXT] * text.shape[2])
        image_valid = jnp.broadcast_to(image_mask[:, None], (len(image), slots, cells))
        mask = attention_mask(s.pattern, kind, jnp.concatenate([image_valid, text_mask], axis=-1))

        def shared_step(layer, streams, keys, asking):
            image, text = streams
            # Where only the first word is read afterwards, the image gives its keys and values and is done.
            image_asks = EVERYTHING if asking == EVERYTHING else slice(0)
            image, memory = layer(image, mask[:, :1, :cells, :cells], None, fold_keys(keys, IMAGE), image_asks)
            text, _ = layer(text, mask[:, :, cells:], memory, fold_keys(keys, TEXT), asking)
            return image, text

        if PATTERNS[s.pattern][IMAGE][TEXT] == NONE:
            return through(layers, shared_step, (image, text), keys, asking=slice(1) if first_only else EVERYTHING)
        whole = jnp.concatenate([jnp.broadcast_to(image, (*text.shape[:2], *image.shape[2:])), text], axis=2)
        asking = slice(cells, cells + 1) if first_only else EVERYTHING
        whole = encode(layers, whole, mask, keys, asking=asking)
        cells = 0 if first_only else cells
        return whole[:, :, :cells], whole[:, :, cells:]


class CrossFusion(nn.Module):
    """One stream is encoded by itself, the other asks it in every layer, as a BERT decoder asks its encoder.

    The pattern decides who asks: the text, or the image where it is the one to be generated.
    """

    settings: Model
    text_layer: ClassVar[str] = "text_layer_{}"

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
        s = self.settings
        streams, valid = [image, text], [image_mask[:, None], text_mask]
        asker = IMAGE if PATTERNS[s.pattern][TEXT][IMAGE] == NONE else TEXT
        asked = 1 - asker
        masks = [stream_mask(s.pattern, kind, valid[kind]) for kind in (IMAGE, TEXT)]
        kinds = {asked: BertLayer, asker: CrossLayer}
        image_layers = [kinds[IMAGE](s, name=f"image_layer_{i}") for i in range(s.layers)]
        text_layers = [kinds[TEXT](s, name=f"text_layer_{i}") for i in range(s.layers)]
        layers = [image_layers, text_layers]
        streams[asked] = encode(layers[asked], streams[asked], masks[asked], fold_keys(keys, asked))

        def step(layer, stream, keys, asking):
            return layer(stream, masks[asker], streams[asked], valid[asked], keys, asking)

        asking = slice(1) if first_only and asker == TEXT else EVERYTHING
        streams[asker] = through(layers[asker], step, streams[asker], fold_keys(keys, asker), asking=asking)
        return streams[IMAGE], streams[TEXT]


class CoAttentionLayer(nn.Module):
    """Both streams ask each other, as each stood before the layer."""

    settings: Model

    @nn.compact
    def __call__(self, streams, masks, valid, keys, asking):
        image, text = streams
        others = CrossLayer(self.settings, name="text")(
            text, masks[TEXT], image, valid[IMAGE], fold_keys(keys, TEXT), asking
        )
        # Where only the first word is read afterwards, the image has been asked for the last time.
        layer = CrossLayer(self.settings, name="image")
        if asking != EVERYTHING and not self.is_initializing():
            return image[:, :, :0], others
        return layer(image, masks[IMAGE], text, valid[TEXT], fold_keys(keys, IMAGE)), others


class CoAttentionFusion(nn.Module):
    """Two streams that ask each other in every layer (ViLBERT, LXMERT)."""

    settings: Model
    text_layer: ClassVar[str] = "layer_{}/text"
    image_layer: ClassVar[str] = "layer_{}/image"

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
        s = self.settings
        valid = (image_mask[:, None], text_mask)
        masks = tuple(stream_mask(s.pattern, kind, valid[kind]) for kind in (IMAGE, TEXT))
        layers = [CoAttentionLayer(s, name=f"layer_{i}") for i in range(s.layers)]

        def step(layer, streams, keys, asking):
            slots = streams[0].shape[1]
            seen = jnp.broadcast_to(valid[IMAGE], (len(image), slots, image.shape[2]))
            return layer(streams, masks, (seen, valid[TEXT]), keys, asking)

        return through(layers, step, (image, text), keys, asking=slice(1) if first_only else EVERYTHING)


class LateFusion(nn.Module):
    """Two trunks; image and text meet in the head."""

    settings: Model
    text_layer: ClassVar[str] = "text_layer_{}"

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
        s = self.settings
        image_layers = [BertLayer(s, name=f"image_layer_{i}") for i in range(s.layers)]
        text_layers = [BertLayer(s, name=f"text_layer_{i}") for i in range(s.layers)]
        image_self = stream_mask(s.pattern, IMAGE, image_mask[:, None])
        image = encode(image_layers, image, image_self, fold_keys(keys, IMAGE))
        text_self = stream_mask(s.pattern, TEXT, text_mask)
        asking = slice(1) if first_only else EVERYTHING
        return image, encode(text_layers, text, text_self, fold_keys(keys, TEXT), asking=asking)


FUSIONS = {"concat": ConcatFusion, "cross": CrossFusion, "co_attention": CoAttentionFusion, "late": LateFusion}


def layer_names(settings: Model) -> list[tuple[str, str]]:
    """What a trunk's layers are called wherever weights are kept, and their paths in this fusion's trunk.

    `trunk/layer_0` and so on are those that the text goes through, as BERT's; `trunk/image_layer_0` the image's own.
    """
    fusion, names = FUSIONS[settings.fusion], []
    for common, own in (("layer_{}", "text_layer"), ("image_layer_{}", "image_layer")):
        if hasattr(fusion, own):
            paths = [(common.format(index), getattr(fusion, own).format(index)) for index in range(settings.layers)]
            names += [(f"trunk/{common}/", f"trunk/{specific}/") for common, specific in paths]
    return names
