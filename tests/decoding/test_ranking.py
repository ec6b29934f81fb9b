"""The most probable tokens are those of `jax.lax.top_k`, ties included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlm_jax.decoding.ranking import BLOCK, top_tokens


@pytest.mark.parametrize("size", [7, BLOCK, 3 * BLOCK, 20 * BLOCK + 5])
@pytest.mark.parametrize("count", [1, 4, 7])
def test_as_top_k(size, count):
    random = np.random.default_rng(size + count)
    logits = random.normal(size=(2, 3, size)).astype(np.float32)
    tied = random.integers(0, 3, (2, 3, size)).astype(np.float32)  # every value many times, in every block
    impossible = np.where(random.random((2, 3, size)) < 0.99, np.float32(-1e30), logits)
    for values in map(jnp.asarray, (logits, tied, impossible)):
        for ours, theirs in zip(top_tokens(values, count), jax.lax.top_k(values, count), strict=True):
            np.testing.assert_array_equal(ours, theirs)
