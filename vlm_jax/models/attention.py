"""Attention with masks from a table of patterns, and dropout with one key per example."""

import itertools
import math
import operator
from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key

from vlm_jax.config.layers import LayerStack
from vlm_jax.models.dtypes import at_least_float32
from vlm_jax.models.kv_cache import KeyValue, KeyValues, KVCache
from vlm_jax.models.products import batched_product, batched_scores

Mask = Bool[Array, "I k N P"] | Float[Array, "I H k N P"]
"""Whether query n attends to key p; or what is added to the score, -inf where it does not."""
MAX_DISTANCE = 128  # from which on all positions share a bucket (T5, MPNet)

NONE, ALL, PAST = range(3)
IMAGE, TEXT = 0, 1

# Rows are queries, columns are keys: ((image sees image, image sees text), (text sees image, text sees text)).
# Where text is causal, images must not see text: a later word would leak through the image.
PATTERNS = {
    "bidirectional": ((ALL, ALL), (ALL, ALL)),
    "image_to_text": ((ALL, NONE), (ALL, ALL)),
    "prefix": ((ALL, NONE), (ALL, PAST)),
    "causal": ((PAST, NONE), (ALL, PAST)),
    "text_to_image": ((ALL, ALL), (NONE, ALL)),
    "autoregressive": ((PAST, ALL), (NONE, ALL)),
    "dual_encoder": ((ALL, NONE), (NONE, ALL)),
}


def attention_mask(pattern: str, kind: Int[Array, " N"], valid: Bool[Array, "*b N"]) -> Bool[Array, "*b N N"]:
    """May query n see key m? `kind` is 0 for image and 1 for text, `valid` is False at padding."""
    see = jnp.asarray(PATTERNS[pattern])[kind[:, None], kind[None, :]]
    position = jnp.arange(kind.size)
    allowed = (see == ALL) | ((see == PAST) & (position[None, :] <= position[:, None]))
    return jnp.expand_dims(allowed, range(valid.ndim - 1)) & valid[..., None, :]


def fold_keys(keys: Key[Array, " I"] | None, part: int | Int[Array, ""]) -> Key[Array, " I"] | None:
    """One key an example for one part of the model; without keys there is no dropout."""
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, part))(keys)


def dropout(x: Float[Array, "I *s"], rate: float, keys: Key[Array, " I"] | None, site: int) -> Float[Array, "I *s"]:
    """Inverted dropout; `keys` holds one key an example, `None` means evaluation, `site` tells calls apart."""
    if keys is None or rate == 0.0:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, site), 1.0 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1.0 - rate), 0).astype(x.dtype)


def attend(
    query: Float[Array, "I K N H d"],
    key_values: KeyValues,
    *,
    mask: Mask,
    rate: float = 0.0,
    keys: Key[Array, " I"] | None = None,
    observe: Callable[[Float[Array, "I H K N P"]], Float[Array, "I H K N P"]] = lambda weights: weights,
) -> Float[Array, "I K N H d"]:
    """Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V (Vaswani et al. 2017, eq. 1), softmax in float32 or wider.

    K and V are those of `key_values`, one after the other: P is the sum of their lengths. A query that attends to
    nothing gets weight zero, not a uniform average. `observe` takes the weights that mix the values.
    """
    scores = jnp.concatenate([_scores(query, key) for key, _ in key_values], axis=-1)
    scores = scores.astype(at_least_float32(scores.dtype)) * (query.shape[-1] ** -0.5)
    if mask.dtype == bool:
        visible = mask[:, None]
    else:
        visible, scores = mask > -jnp.inf, scores + mask
    scores = jnp.where(visible, scores, jnp.finfo(scores.dtype).min)
    weights = jnp.where(visible, jax.nn.softmax(scores, axis=-1), 0.0).astype(key_values[-1][1].dtype)
    weights = observe(dropout(weights, rate, keys, 0))
    ends = list(itertools.accumulate(value.shape[3] for _, value in key_values))
    shares = jnp.split(weights, ends[:-1], axis=-1)
    return reduce(operator.add, (_mixed(share, value) for share, (_, value) in zip(shares, key_values, strict=True)))


def _scores(query: Float[Array, "I K N H d"], key: Float[Array, "I m H L d"]) -> Float[Array, "I H K N L"]:
    """Where all slots share the keys, one product an image and head holds the queries of all of them."""
    if key.shape[1] == 1:
        images, slots, length, heads, size = query.shape
        flat = query.transpose(0, 3, 1, 2, 4).reshape(images, heads, slots * length, size)
        scores = batched_scores(flat, key[:, 0])
        return scores.reshape(images, heads, slots, length, key.shape[3])
    return batched_scores(query.swapaxes(2, 3), key).swapaxes(1, 2)


def _mixed(weights: Float[Array, "I H K N L"], value: Float[Array, "I m H L d"]) -> Float[Array, "I K N H d"]:
    if value.shape[1] == 1:
        images, heads, slots, length, num_keys = weights.shape
        flat = batched_product(weights.reshape(images, heads, slots * length, num_keys), value[:, 0])
        return flat.reshape(images, heads, slots, length, value.shape[-1]).transpose(0, 2, 3, 1, 4)
    return batched_product(weights.swapaxes(1, 2), value).swapaxes(2, 3)


def stream_mask(pattern: str, kind: int, valid: Bool[Array, "I k N"]) -> Bool[Array, "I k N N"]:
    """`attention_mask` within one stream, all of whose positions are of one kind."""
    return attention_mask(pattern, jnp.full(valid.shape[-1], kind), valid)


def relative_buckets(length: int, count: int) -> Int[np.ndarray, "{length} {length}"]:
    """The bucket of key m for query n, by m - n: half of the buckets for keys behind (Raffel et al. 2020, section 2.1).

    Half of each side are single distances; the others grow with the logarithm, up to `MAX_DISTANCE`.
    """
    offset = np.arange(length)[None, :] - np.arange(length)[:, None]
    half = count // 2
    exact, distance = half // 2, np.abs(offset)
    # In float32, as in modeling_mpnet.py: at powers of two the bucket hangs on the rounding.
    ratio = np.log(np.maximum(distance, exact).astype(np.float32) / exact) / math.log(MAX_DISTANCE / exact)
    far = np.minimum(exact + (ratio * (half - exact)).astype(np.int32), half - 1)
    return np.where(offset > 0, half, 0) + np.where(distance < exact, distance, far)


class RelativeBias(nn.Module):
    """A learned number for each head and bucket of relative positions, which every layer adds to its scores (MPNet)."""

    num_buckets: int
    num_heads: int

    @nn.compact
    def __call__(self, mask: Bool[Array, "I k N N"]) -> Float[Array, "I H k N N"]:
        """The mask with the biases in it."""
        table = self.param("embedding", nn.initializers.normal(0.02), (self.num_buckets, self.num_heads))
        bias = table[relative_buckets(mask.shape[-1], len(table))].transpose(2, 0, 1)
        return jnp.where(mask[:, None], bias[None, :, None], -jnp.inf)


def _split_heads(settings: LayerStack, x: Float[Array, "I K N D"]) -> Float[Array, "I K N H d"]:
    return x.reshape(*x.shape[:-1], settings.num_attention_heads, settings.hidden_size // settings.num_attention_heads)


def _heads_first(settings: LayerStack, x: Float[Array, "I K N D"]) -> Float[Array, "I K H N d"]:
    return _split_heads(settings, x).swapaxes(2, 3)


class _Attention(nn.Module):
    """The four projections of multi-head attention, and with `use_qk_norm` the norms of queries and keys.

    Each is an RMS norm (Zhang and Sennrich 2019) over the d entries of a head, with transformers' epsilon.
    """

    settings: LayerStack

    def setup(self) -> None:
        s, dtype = self.settings, jnp.dtype(self.settings.dtype)
        dense, norm = partial(nn.Dense, s.hidden_size, dtype=dtype), partial(nn.RMSNorm, epsilon=1e-6, dtype=dtype)
        self.query, self.key, self.value, self.output = dense(), dense(), dense(), dense()
        self.query_norm, self.key_norm = (norm(), norm()) if s.use_qk_norm else (None, None)

    def queries(self, x: Float[Array, "I K N D"]) -> Float[Array, "I K N H d"]:
        """Queries of a stream."""
        query = _split_heads(self.settings, self.query(x))
        return query if self.query_norm is None else self.query_norm(query)

    def attention_weights(self, weights: Float[Array, "I H K N P"]) -> Float[Array, "I H K N P"]:
        """The weights as they are: `recording.record` collects what this method returns."""
        return weights

    def attend(
        self, query: Float[Array, "I K N H d"], key_values: KeyValues, mask: Mask, keys: Key[Array, " I"] | None
    ) -> Float[Array, "I K N H d"]:
        """What the queries mix of the values, with the settings' dropout."""
        rate = self.settings.attention_probs_dropout_prob
        return attend(query, key_values, mask=mask, rate=rate, keys=keys, observe=self.attention_weights)

    def keys_and_values(self, source: Float[Array, "I k M D"]) -> KeyValue:
        """Keys and values of the stream to attend to."""
        key, value = (_heads_first(self.settings, dense(source)) for dense in (self.key, self.value))
        return key if self.key_norm is None else self.key_norm(key), value


class SelfAttention(_Attention):
    """Multi-head attention of a stream to `key_values` and to itself: BERT's `BertSelfAttention` + output.

    Positions in `query_slice` are queries, all positions are keys. With a `cache` its earlier positions are keys too,
    and `mask` has a column for each of its L positions. Returns the stream with its keys and values, or the cache with
    them.
    """

    def __call__(
        self,
        x: Float[Array, "I K N D"],
        mask: Mask,
        key_values: KeyValues = (),
        keys: Key[Array, " I"] | None = None,
        query_slice: slice = slice(None),
        cache: KVCache | None = None,
    ) -> tuple[Float[Array, "I K n D"], KeyValue | KVCache]:
        queried = x[:, :, query_slice]
        query, own = self.queries(queried), self.keys_and_values(x)
        if cache is not None:
            own = cache.update(*own)
        mask = mask[..., query_slice, :]
        key_values = (*key_values, (own[0], own[1]))
        mixed = self.attend(query, key_values, mask, keys)
        return self.output(mixed.reshape(queried.shape)), own


class CrossAttention(_Attention):
    """Multi-head attention of every position of one stream to another stream: the cross-attention of `BertLayer`.

    It attends to the keys and values that `keys_and_values` computes of the other stream; those of one slot serve all
    slots.
    """

    def __call__(
        self,
        x: Float[Array, "I K N D"],
        key_value: KeyValue,
        visible: Bool[Array, "I k M"],
        keys: Key[Array, " I"] | None = None,
    ) -> Float[Array, "I K N D"]:
        key, query = key_value[0], self.queries(x)
        if key.shape[1] == 1:  # one product an image and head holds the queries of all slots
            query = query.reshape(len(x), 1, -1, *query.shape[3:])
        mask = jnp.broadcast_to(visible[:, :, None], (*visible.shape[:2], query.shape[2], key.shape[3]))
        mixed = self.attend(query, (key_value,), mask, keys)
        return self.output(mixed.reshape(x.shape))
