"""Products with a table of vectors: one value for any number of vectors, on any device."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlm_jax.models.bert import FEW_VECTORS, table_scores


@pytest.mark.parametrize("shape", [(1,), (2, 1), (4, 2), (FEW_VECTORS,), (FEW_VECTORS + 1,)])
def test_scores_are_products(shape):
    random = np.random.default_rng(0)
    x, table = (random.normal(size=(*size, 16)).astype(np.float32) for size in (shape, (50,)))
    scores = partial(table_scores, table=jnp.asarray(table))
    gradient = jax.grad(lambda x: (scores(x) ** 2).sum())(jnp.asarray(x))
    wide = x.astype(np.float64) @ table.T
    np.testing.assert_allclose(scores(jnp.asarray(x)), wide, atol=2e-5)
    np.testing.assert_allclose(gradient, 2 * wide @ table, atol=2e-5 * np.abs(wide @ table).max())
