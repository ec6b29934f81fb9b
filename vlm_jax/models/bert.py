"""BERT's embedding sum (Devlin et al. 2019) and the layer of all transformers, post-norm as BERT's or pre-norm."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.layers import LayerStack
from vlm_jax.errors import InputError
from vlm_jax.models.attention import CrossAttention, Mask, SelfAttention, dropout, fold_keys
from vlm_jax.models.ids import check_ids
from vlm_jax.models.kv_cache import KeyValue, KeyValues, KVCache


def swiglu(x: Float[Array, "*n C"]) -> Float[Array, "*n c"]:
    """SiLU of the first half of the channels times the second half (Shazeer 2020, arXiv:2002.05202, eq. 6)."""
    gate, values = jnp.split(x, 2, axis=-1)
    return jax.nn.silu(gate) * values


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),  # BERT's erf form; JAX defaults to tanh
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),  # CLIP's
    "relu": jax.nn.relu,
    "swiglu": swiglu,
}
FEW_VECTORS = 32  # up to which a table as the left side of a product is read faster on a CPU
EMBEDDING_INIT = nn.initializers.normal(0.02)  # BERT's initializer_range
LAYER_SCALE_INIT = nn.initializers.constant(1e-5)  # DINOv2's


def layer_norm(settings: LayerStack, name: str | None = None) -> nn.LayerNorm:
    """A layer norm with the settings' epsilon (BERT's is 1e-12, Flax's 1e-6); statistics are float32."""
    return nn.LayerNorm(epsilon=settings.layer_norm_eps, dtype=jnp.dtype(settings.dtype), name=name)


class TextEmbeddings(nn.Module):
    """Words + positions + segments, summed: BERT's embedding layer up to its layer norm.

    Without `segments` every token is of the first one. Positions count from `first_position`, RoBERTa's from 2, and
    from `start` on where the words before are known already.

    With a `pad_id` it is transformers' embedding layer in two more things. Row `pad_id` of a table gets no gradient
    (`nn.Embedding(padding_idx=...)`). Where `first_position` is not 0, positions count only tokens that are not
    `pad_id` (`create_position_ids_from_input_ids` of modeling_roberta.py), wherever padding stands.

    Raises `InputError` for more tokens than positions, and outside of `jax.jit` for ids without a row.
    """

    settings: Architecture
    pad_id: int | None = None

    def setup(self) -> None:
        s = self.settings
        self.word = nn.Embed(s.vocab_size, s.text_feature_size, embedding_init=EMBEDDING_INIT)
        self.position = nn.Embed(s.max_position_embeddings, s.text_feature_size, embedding_init=EMBEDDING_INIT)
        if s.type_vocab_size:
            self.segment = nn.Embed(s.type_vocab_size, s.text_feature_size, embedding_init=EMBEDDING_INIT)

    def __call__(
        self,
        input_ids: Int[Array, "I K T"],
        segments: Int[Array, "I K T"] | None = None,
        *,
        start: int | Int[Array, ""] = 0,
    ) -> Float[Array, "I K T E"]:
        s = self.settings
        check_ids(input_ids, s.vocab_size, "token id")
        words, positions = self.word(input_ids), self.position(self._positions(input_ids, start))
        if self.pad_id is not None:
            padding = (input_ids == self.pad_id)[..., None]
            words = jnp.where(padding, jax.lax.stop_gradient(words), words)
            if s.first_position:
                positions = jnp.where(padding, jax.lax.stop_gradient(positions), positions)
        if not s.type_vocab_size:
            if segments is not None:
                raise InputError("this encoder has no token types; leave segments out")
            return words + positions
        if segments is None:
            segments = jnp.zeros((1, 1, input_ids.shape[-1]), jnp.int32)
        check_ids(segments, s.type_vocab_size, "token type")
        return words + self.segment(segments) + positions

    def _positions(self, input_ids: Int[Array, "I K T"], start: int | Int[Array, ""]) -> Int[Array, "#I #K T"]:
        s, length = self.settings, input_ids.shape[-1]
        needed = s.first_position + length + (start if isinstance(start, int) else 0)
        if needed > s.max_position_embeddings:
            raise InputError(
                f"a text of {length} tokens needs {needed} positions, the table has {s.max_position_embeddings}; "
                f"shorten it"
            )
        if self.pad_id is None or not s.first_position:
            return (s.first_position + start + jnp.arange(length))[None, None]
        visible = (input_ids != self.pad_id).astype(jnp.int32)
        return jnp.cumsum(visible, axis=-1) * visible + self.pad_id

    def scores(self, x: Float[Array, "*n E"]) -> Float[Array, "*n V"]:
        """The product with every row of the word table: a decoder tied to it."""
        return table_scores(x, jnp.asarray(self.word.embedding))


def table_scores(x: Float[Array, "*n E"], table: Float[Array, "V E"]) -> Float[Array, "*n V"]:
    """The products of vectors with every row of a table of vectors.

    The table is contracted as it lies: XLA on a CPU would transpose it for every token. Few vectors, as a decoding
    step has them, are transposed in its place: as the left side a table of 768 columns is read 1.6 times as fast.
    """
    rows = x.size // x.shape[-1]
    if 1 < rows <= FEW_VECTORS and jax.default_backend() == "cpu":
        scores = table @ jax.lax.optimization_barrier(x.reshape(rows, -1).T)
        return jax.lax.optimization_barrier(scores).T.reshape(*x.shape[:-1], -1)
    return jnp.einsum("...e,ve->...v", x, table)


class LayerScale(nn.Module):
    """A factor of each channel (CaiT, Touvron et al. 2021, section 2.1)."""

    @nn.compact
    def __call__(self, x: Float[Array, "*n D"]) -> Float[Array, "*n D"]:
        scale = self.param("scale", LAYER_SCALE_INIT, x.shape[-1:]).astype(x.dtype)
        return x * jnp.expand_dims(scale, range(x.ndim - 1))


class BertLayer(nn.Module):
    """Self-attention and feed-forward, each added to the stream, at positions `query_slice`.

    The sum goes through a layer norm (post-norm), or with `pre_norm` what each part reads does (ViT, Dosovitskiy et al.
    2021). With `layer_scale` each channel of what is added has a factor.

    Returns the stream with its keys and values, or the `cache` with them.
    """

    settings: LayerStack

    def setup(self) -> None:
        s = self.settings
        dtype = jnp.dtype(s.dtype)
        self.attention, self.attention_norm = SelfAttention(s), layer_norm(s)
        gates = s.hidden_act == "swiglu"
        self.intermediate = nn.Dense(s.intermediate_size * (1 + gates), dtype=dtype)
        self.output, self.output_norm = nn.Dense(s.hidden_size, dtype=dtype), layer_norm(s)
        if s.layer_scale:
            self.attention_scale, self.output_scale = LayerScale(), LayerScale()

    def __call__(
        self,
        x: Float[Array, "I K N D"],
        mask: Mask,
        key_values: KeyValues = (),
        keys: Key[Array, " I"] | None = None,
        query_slice: slice = slice(None),
        cache: KVCache | None = None,
    ) -> tuple[Float[Array, "I K n D"], KeyValue | KVCache]:
        x, own = self.attend_to_itself(x, mask, key_values, keys, query_slice, cache)
        return self.feed_forward(x, keys), own

    def attend_to_itself(
        self,
        x: Float[Array, "I K N D"],
        mask: Mask,
        key_values: KeyValues,
        keys: Key[Array, " I"] | None,
        query_slice: slice,
        cache: KVCache | None,
    ) -> tuple[Float[Array, "I K n D"], KeyValue | KVCache]:
        """The first half of the layer."""
        source = self.norm_before(self.attention_norm, x)
        mixed, own = self.attention(source, mask, key_values, keys, query_slice, cache)
        mixed = self.attention_scale(mixed) if self.settings.layer_scale else mixed
        mixed = mixed if self.settings.dropout_after == "feed_forward" else self._dropout(mixed, keys, 1)
        return self.norm_after(self.attention_norm, x[:, :, query_slice] + mixed), own

    def feed_forward(self, x: Float[Array, "I K n D"], keys: Key[Array, " I"] | None) -> Float[Array, "I K n D"]:
        """The last part of the layer."""
        inner = self.intermediate(self.norm_before(self.output_norm, x))
        activated = self.output(ACTIVATIONS[self.settings.hidden_act](inner))
        activated = self.output_scale(activated) if self.settings.layer_scale else activated
        activated = activated if self.settings.dropout_after == "attention" else self._dropout(activated, keys, 2)
        return self.norm_after(self.output_norm, x + activated)

    def _dropout(self, x: Float[Array, "I *s"], keys: Key[Array, " I"] | None, site: int) -> Float[Array, "I *s"]:
        return dropout(x, self.settings.hidden_dropout_prob, keys, site)

    def norm_before(self, norm: nn.Module, x: Float[Array, "*n D"]) -> Float[Array, "*n D"]:
        """What a part of the layer reads of the stream."""
        return norm(x) if self.settings.pre_norm else x

    def norm_after(self, norm: nn.Module, x: Float[Array, "*n D"]) -> Float[Array, "*n D"]:
        """The stream with what a part of the layer added."""
        return x if self.settings.pre_norm else norm(x)


class CrossLayer(BertLayer):
    """Self-attention, attention to another stream, feed-forward: `BertLayer` with cross-attention.

    The other stream comes as what `keys_and_values` computed of it; without one the layer is a `BertLayer`. A stream of
    one slot that attends to one of K slots becomes K slots.
    """

    def setup(self) -> None:
        super().setup()
        self.cross_attention, self.cross_attention_norm = CrossAttention(self.settings), layer_norm(self.settings)

    def keys_and_values(self, source: Float[Array, "I s M D"]) -> KeyValue:
        """Keys and values of the other stream."""
        return self.cross_attention.keys_and_values(source)

    def __call__(
        self,
        x: Float[Array, "I m N D"],
        mask: Mask,
        other: KeyValue | None,
        visible: Bool[Array, "I s M"],
        keys: Key[Array, " I"] | None = None,
        query_slice: slice = slice(None),
        cache: KVCache | None = None,
    ) -> tuple[Float[Array, "I K n D"], KeyValue | KVCache]:
        x, own = self.attend_to_itself(x, mask, (), keys, query_slice, cache)
        if other is not None:
            x = self._attend_to_other(x, other, visible, keys)
        return self.feed_forward(x, keys), own

    def _attend_to_other(
        self, x: Float[Array, "I m N D"], other: KeyValue, visible: Bool[Array, "I s M"], keys: Key[Array, " I"] | None
    ) -> Float[Array, "I K N D"]:
        x = jnp.broadcast_to(x, (len(x), max(x.shape[1], other[0].shape[1]), *x.shape[2:]))
        source = self.norm_before(self.cross_attention_norm, x)
        mixed = self.cross_attention(source, other, visible, fold_keys(keys, 3))
        mixed = self._dropout(mixed, keys, 3)
        return self.norm_after(self.cross_attention_norm, x + mixed)
