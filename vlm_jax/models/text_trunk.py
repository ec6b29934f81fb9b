"""The trunk of a published text model: layers that may share their parameters, a relative bias, or an encoder's states.

A model with an image has one of `fusion.FUSIONS` instead.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Key

from vlm_jax.config.architecture import Architecture
from vlm_jax.errors import InputError
from vlm_jax.models.attention import TEXT, RelativeBias, dropout, stream_mask
from vlm_jax.models.bert import BertLayer, CrossLayer, layer_norm
from vlm_jax.models.fusion import Fusion, Streams, decode_with_states, encode, run_layers
from vlm_jax.models.kv_cache import KeyValue, KVCache, Prefix


def group_of(settings: Architecture, layer: int) -> int:
    """Whose parameters a layer has: `trunk/layer_{group}` (Lan et al. 2020, section 3.1)."""
    s = settings
    return int(layer / (s.num_layers / s.num_hidden_groups)) if s.num_hidden_groups else layer  # as modeling_albert.py


class TextEmbeddingNorm(nn.Module):
    """The layer norm of text embeddings, and with `project_embeddings` a projection to the trunk's width behind it.

    In the place of an image stand the states of an encoder; they stay as they are.
    """

    settings: Architecture

    @nn.compact
    def __call__(
        self,
        states: Float[Array, "I M C"] | None,
        text: Float[Array, "I K T E"],
        keys: Key[Array, " I"] | None = None,
    ) -> tuple[Float[Array, "I 1 M C"], Float[Array, "I K T D"]]:
        s, dtype = self.settings, jnp.dtype(self.settings.dtype)
        text = dropout(layer_norm(s, "norm")(text), s.hidden_dropout_prob, keys, 2)
        if s.project_embeddings:
            text = nn.Dense(s.hidden_size, dtype=dtype, name="text_fc")(text)
        return jnp.zeros((len(text), 1, 0, s.hidden_size), dtype) if states is None else states[:, None], text


class TextTrunk(Fusion):
    """The layers of a text model, with the call of a fusion.

    With the fusion `cross` every layer attends to the states of an encoder, which stand in the place of the image: a
    BERT decoder (Vaswani et al. 2017, section 3.1). A bidirectional one reads texts without states as well (BLIP, Li et
    al. 2022, section 3.1).
    """

    def setup(self) -> None:
        s = self.settings
        for group in range(s.num_hidden_groups or s.num_layers):
            setattr(self, f"layer_{group}", CrossLayer(s) if s.fusion == "cross" else BertLayer(s))
        self._layers = [getattr(self, f"layer_{group_of(s, layer)}") for layer in range(s.num_layers)]
        buckets = s.relative_attention_num_buckets
        self.relative_bias = RelativeBias(buckets, s.num_attention_heads) if buckets else None

    def __call__(
        self,
        image: Float[Array, "I 1 M C"],
        text: Float[Array, "I K T D"],
        image_mask: Bool[Array, "I M"],
        text_mask: Bool[Array, "I K T"],
        keys: Key[Array, " I"] | None = None,
        first_only: bool = False,
    ) -> Streams:
        mask = stream_mask(self.settings.attention_pattern, TEXT, text_mask)
        if self.relative_bias is not None:
            mask = self.relative_bias(mask)
        query_slice = slice(1) if first_only else slice(None)
        if self.settings.fusion != "cross":
            if image.shape[2]:
                raise InputError("this text model attends to no other stream; leave image out")
            return image, encode(self._layers, text, mask, keys, query_slice=query_slice)
        if not image.shape[2] and self.settings.attention_pattern == "causal":
            raise InputError("this decoder attends to an encoder; give the encoder's states as image [B, M, D]")

        def step(layer, stream, keys, query_slice):
            states = layer.keys_and_values(image) if image.shape[2] else None
            return layer(stream, mask, states, image_mask[:, None], keys, query_slice)[0]

        return text[:, :1, :0], run_layers(self._layers, step, text, keys, query_slice=query_slice)

    def prefill(self, kind: int, stream: Float[Array, "I k M C"], mask: Bool[Array, "I k M"]) -> Prefix:
        """What new tokens attend to in the states of an encoder."""
        return Prefix([layer.keys_and_values(stream) for layer in self._layers], mask)

    def decode_step(
        self,
        new: Float[Array, "I K n D"],
        mask: Bool[Array, "I K n L"],
        prefix: Prefix,
        caches: Sequence[KVCache | None],
    ) -> tuple[Float[Array, "I K n D"], list[KeyValue | KVCache]]:
        """New tokens of a decoder; `mask` says which tokens they attend to, those in the caches before."""
        return decode_with_states(self._layers, new, mask, prefix, caches)
