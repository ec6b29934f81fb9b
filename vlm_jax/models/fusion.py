"""Where image and text meet: four trunks behind one interface.

Every fusion maps `(image, text, image_mask, text_mask, keys, first_only)` to `(image, text)`; heads do not know which
one ran. With `first_only` the last layer computes, of the text, the first position alone. `text_layer` says where the
layers of the text stand, so that a pretrained text encoder can start them.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Key

from vlm_jax.config.architecture import Architecture
from vlm_jax.models.attention import (
    IMAGE,
    NONE,
    PATTERNS,
    TEXT,
    Mask,
    attention_mask,
    fold_keys,
    stream_mask,
)
from vlm_jax.models.bert import BertLayer, CrossLayer
from vlm_jax.models.kv_cache import KeyValue, KVCache, Prefix

Streams = tuple[Float[Array, "I k g D"], Float[Array, "I K t D"]]
Tree = TypeVar("Tree")
ALL_POSITIONS = slice(None)


def run_layers(
    layers: Sequence[nn.Module],
    step: Callable[[nn.Module, Tree, Key[Array, " I"] | None, slice], Tree],
    streams: Tree,
    keys: Key[Array, " I"] | None,
    *,
    query_slice: slice = ALL_POSITIONS,
) -> Tree:
    """`step(layer, streams, keys, query_slice)` layer after layer; only the last may compute fewer positions,
    `query_slice`.

    The settings of the layers decide how: unrolled, or scanned over stacked weights between the first and the last
    (compiled once), and recomputed in the backward pass with `remat`. Parameters keep one layout.
    """
    settings = layers[0].settings
    slices = [ALL_POSITIONS] * (len(layers) - 1) + [query_slice]
    if layers[0].is_initializing() or not (settings.remat or settings.scan_layers):
        for index, (layer, layer_slice) in enumerate(zip(layers, slices, strict=True)):
            streams = step(layer, streams, fold_keys(keys, index), layer_slice)
        return streams

    unbound = layers[0].clone(parent=None, name=None)

    def body(layer_slice):
        def run(streams, weights_and_index):
            weights, index = weights_and_index
            return step(unbound.bind({"params": weights}), streams, fold_keys(keys, index), layer_slice), None

        return jax.checkpoint(run) if settings.remat else run

    weights = [layer.variables["params"] for layer in layers]
    middle = range(1, len(layers) - 1) if settings.scan_layers else range(0)
    for index, layer_slice in enumerate(slices):
        if index not in middle:
            streams, _ = body(layer_slice)(streams, (weights[index], index))
        elif index == 1:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(weights[i] for i in middle))
            streams, _ = jax.lax.scan(body(layer_slice), streams, (stacked, jnp.array(middle)))
    return streams


def encode(
    layers: Sequence[BertLayer],
    stream: Float[Array, "I k N D"],
    mask: Mask,
    keys: Key[Array, " I"] | None,
    *,
    query_slice: slice = ALL_POSITIONS,
) -> Float[Array, "I k n D"]:
    """A stream through BERT layers that read nothing else."""

    def step(layer, stream, keys, query_slice):
        return layer(stream, mask, (), keys, query_slice)[0]

    return run_layers(layers, step, stream, keys, query_slice=query_slice)


def decode_with_states(
    layers: Sequence[CrossLayer],
    new: Float[Array, "I K n D"],
    mask: Bool[Array, "I K n L"],
    prefix: Prefix,
    caches: Sequence[KVCache | None],
) -> tuple[Float[Array, "I K n D"], list[KeyValue | KVCache]]:
    """New positions of a stream that attends to another one in every layer; `mask` is for its own positions."""
    own = []
    for layer, key_value, cache in zip(layers, prefix.layers, caches, strict=True):
        new, longer = layer(new, mask, key_value, prefix.mask, cache=cache)
        own.append(longer)
    return new, own


class Fusion(nn.Module):
    """What every fusion takes; its layers have names of their own in the tree of parameters."""

    settings: Architecture

    def _add(self, name: str, make: Callable[[Architecture], nn.Module]) -> list[nn.Module]:
        """One layer a depth, the parameters of the first under `name` with 0 in it."""
        layers = [make(self.settings) for _ in range(self.settings.num_layers)]
        for index, layer in enumerate(layers):
            setattr(self, name.format(index), layer)
        return [getattr(self, name.format(index)) for index in range(self.settings.num_layers)]


class ConcatFusion(Fusion):
    """One sequence, image first, through one BERT trunk (VisualBERT, Pixel-BERT).

    Where the pattern masks text from the image, the image side is the same for every text about an image. It is
    computed once, and the text attends to its keys and values. The result equals the concatenated computation.
    """

    text_layer: ClassVar[str] = "layer_{}"

    def setup(self) -> None:
        self._layers = self._add(self.text_layer, BertLayer)

    def __call__(
        self,
        image: Float[Array, "I 1 G D"],
        text: Float[Array, "I K T D"],
        image_mask: Bool[Array, "I G"],
        text_mask: Bool[Array, "I K T"],
        keys: Key[Array, " I"] | None = None,
        first_only: bool = False,
    ) -> Streams:
        s, layers = self.settings, self._layers
        num_positions, slots = image.shape[2], text.shape[1]
        kind = jnp.array([IMAGE] * num_positions + [TEXT] * text.shape[2])
        image_valid = jnp.broadcast_to(image_mask[:, None], (len(image), slots, num_positions))
        mask = attention_mask(s.attention_pattern, kind, jnp.concatenate([image_valid, text_mask], axis=-1))

        def shared_step(layer, streams, keys, query_slice):
            image, text = streams
            # Where only the first token is read afterwards, the image gives its keys and values and is done.
            image_query_slice = ALL_POSITIONS if query_slice == ALL_POSITIONS else slice(0)
            image, key_value = layer(
                image, mask[:, :1, :num_positions, :num_positions], (), fold_keys(keys, IMAGE), image_query_slice
            )
            text, _ = layer(text, mask[:, :, num_positions:], (key_value,), fold_keys(keys, TEXT), query_slice)
            return image, text

        if PATTERNS[s.attention_pattern][IMAGE][TEXT] == NONE:
            return run_layers(
                layers, shared_step, (image, text), keys, query_slice=slice(1) if first_only else ALL_POSITIONS
            )
        sequence = jnp.concatenate([jnp.broadcast_to(image, (*text.shape[:2], *image.shape[2:])), text], axis=2)
        query_slice = slice(num_positions, num_positions + 1) if first_only else ALL_POSITIONS
        sequence = encode(layers, sequence, mask, keys, query_slice=query_slice)
        num_positions = 0 if first_only else num_positions
        return sequence[:, :, :num_positions], sequence[:, :, num_positions:]

    def prefill(self, kind: int, stream: Float[Array, "I k N D"], mask: Bool[Array, "I k N"]) -> Prefix:
        """What the other stream attends to; the pattern must mask the other stream from this one."""
        layers, own_mask = [], stream_mask(self.settings.attention_pattern, kind, mask)
        for layer in self._layers:
            stream, key_value = layer(stream, own_mask)
            layers.append(key_value)
        return Prefix(layers, mask)

    def decode_step(
        self,
        new: Float[Array, "I K n D"],
        mask: Bool[Array, "I K n L"],
        prefix: Prefix,
        caches: Sequence[KVCache | None],
    ) -> tuple[Float[Array, "I K n D"], list[KeyValue | KVCache]]:
        """New positions of the other stream; `mask` says which of it they attend to, those in the caches before."""
        visible = jnp.broadcast_to(prefix.mask[:, :, None], (*new.shape[:3], prefix.mask.shape[2]))
        mask, own = jnp.concatenate([visible, mask], axis=-1), []
        for layer, key_value, cache in zip(self._layers, prefix.layers, caches, strict=True):
            new, longer = layer(new, mask, (key_value,), cache=cache)
            own.append(longer)
        return new, own


class CrossFusion(Fusion):
    """One stream is encoded by itself, the other attends to it in every layer, as a BERT decoder to its encoder.

    The pattern decides which one attends: the text, or the image where it is to be generated.
    """

    text_layer: ClassVar[str] = "text_layer_{}"

    def setup(self) -> None:
        self._query_stream = IMAGE if PATTERNS[self.settings.attention_pattern][TEXT][IMAGE] == NONE else TEXT
        kinds = (CrossLayer, BertLayer) if self._query_stream == IMAGE else (BertLayer, CrossLayer)
        self._layers = [self._add(name, kinds[i]) for i, name in enumerate(("image_layer_{}", self.text_layer))]

    def __call__(
        self,
        image: Float[Array, "I 1 G D"],
        text: Float[Array, "I K T D"],
        image_mask: Bool[Array, "I G"],
        text_mask: Bool[Array, "I K T"],
        keys: Key[Array, " I"] | None = None,
        first_only: bool = False,
    ) -> Streams:
        s, layers = self.settings, self._layers
        streams, valid = [image, text], [image_mask[:, None], text_mask]
        query_stream, source_stream = self._query_stream, 1 - self._query_stream
        masks = [stream_mask(s.attention_pattern, kind, valid[kind]) for kind in (IMAGE, TEXT)]
        streams[source_stream] = encode(
            layers[source_stream], streams[source_stream], masks[source_stream], fold_keys(keys, source_stream)
        )

        def step(layer, stream, keys, query_slice):
            return layer(
                stream,
                masks[query_stream],
                layer.keys_and_values(streams[source_stream]),
                valid[source_stream],
                keys,
                query_slice,
            )[0]

        query_slice = slice(1) if first_only and query_stream == TEXT else ALL_POSITIONS
        streams[query_stream] = run_layers(
            layers[query_stream], step, streams[query_stream], fold_keys(keys, query_stream), query_slice=query_slice
        )
        return streams[IMAGE], streams[TEXT]

    def prefill(self, kind: int, stream: Float[Array, "I k N D"], mask: Bool[Array, "I k N"]) -> Prefix:
        """What the stream with cross-attention attends to."""
        stream = encode(self._layers[kind], stream, stream_mask(self.settings.attention_pattern, kind, mask), None)
        return Prefix([layer.keys_and_values(stream) for layer in self._layers[self._query_stream]], mask)

    def decode_step(
        self,
        new: Float[Array, "I K n D"],
        mask: Bool[Array, "I K n L"],
        prefix: Prefix,
        caches: Sequence[KVCache | None],
    ) -> tuple[Float[Array, "I K n D"], list[KeyValue | KVCache]]:
        """New positions of the other stream; `mask` says which of it they attend to, those in the caches before."""
        return decode_with_states(self._layers[self._query_stream], new, mask, prefix, caches)


class CoAttentionLayer(nn.Module):
    """Each stream attends to the other as it was before the layer."""

    settings: Architecture

    def setup(self) -> None:
        self.text, self.image = CrossLayer(self.settings), CrossLayer(self.settings)

    def __call__(self, streams, masks, valid, keys, query_slice):
        image, text = streams
        text_out, _ = self.text(
            text, masks[TEXT], self.text.keys_and_values(image), valid[IMAGE], fold_keys(keys, TEXT), query_slice
        )
        # Where only the first token is read afterwards, nothing attends to the image any more.
        if query_slice != ALL_POSITIONS and not self.is_initializing():
            return image[:, :, :0], text_out
        image_out, _ = self.image(
            image, masks[IMAGE], self.image.keys_and_values(text), valid[TEXT], fold_keys(keys, IMAGE)
        )
        return image_out, text_out


class CoAttentionFusion(Fusion):
    """Two streams that attend to each other in every layer (ViLBERT, LXMERT)."""

    text_layer: ClassVar[str] = "layer_{}/text"
    image_layer: ClassVar[str] = "layer_{}/image"

    def setup(self) -> None:
        self._layers = self._add("layer_{}", CoAttentionLayer)

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
        masks = tuple(stream_mask(s.attention_pattern, kind, valid[kind]) for kind in (IMAGE, TEXT))

        def step(layer, streams, keys, query_slice):
            slots = streams[0].shape[1]
            seen = jnp.broadcast_to(valid[IMAGE], (len(image), slots, image.shape[2]))
            return layer(streams, masks, (seen, valid[TEXT]), keys, query_slice)

        return run_layers(
            self._layers, step, (image, text), keys, query_slice=slice(1) if first_only else ALL_POSITIONS
        )


class LateFusion(Fusion):
    """Two trunks; image and text meet in the head."""

    text_layer: ClassVar[str] = "text_layer_{}"

    def setup(self) -> None:
        self._layers = [self._add(name, BertLayer) for name in ("image_layer_{}", self.text_layer)]

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
        image_layers, text_layers = self._layers
        image_self = stream_mask(s.attention_pattern, IMAGE, image_mask[:, None])
        image = encode(image_layers, image, image_self, fold_keys(keys, IMAGE))
        text_self = stream_mask(s.attention_pattern, TEXT, text_mask)
        query_slice = slice(1) if first_only else ALL_POSITIONS
        return image, encode(text_layers, text, text_self, fold_keys(keys, TEXT), query_slice=query_slice)


FUSIONS = {"concat": ConcatFusion, "cross": CrossFusion, "co_attention": CoAttentionFusion, "late": LateFusion}


def layer_names(settings: Architecture) -> list[tuple[str, str]]:
    """The common names of a trunk's layers in weight files, and their paths in this fusion's trunk.

    `trunk/layer_0` and so on are the text's layers, as BERT's; `trunk/image_layer_0` and so on the image's own.
    """
    fusion, names = FUSIONS[settings.fusion], []
    for common, own in (("layer_{}", "text_layer"), ("image_layer_{}", "image_layer")):
        if hasattr(fusion, own):
            paths = [(common.format(index), getattr(fusion, own).format(index)) for index in range(settings.num_layers)]
            names += [(f"trunk/{common}/", f"trunk/{specific}/") for common, specific in paths]
    return names
