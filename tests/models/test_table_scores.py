"""Products with a table of vectors: one value for any number of vectors, on any device."""

import jax
import numpy as np
import pytest

from vlm_jax.models.bert import FEW_VECTORS, table_scores


@pytest.mark.parametrize("shape", [(1,), (2, 1), (4, 2), (FEW_VECTORS,), (FEW_VECTORS + 1,)])
def test_scores_are_products(shape):
    random = np.random.default_rng(0)
    x, table = (random.normal(size=(*size, 16)).astype(np.float32) for size in (shape, (50,)))
    scores, gradient = jax.value_and_grad(lambda x: (table_scores(x, table) ** 2).sum())(x)
    wide = x.astype(np.float64) @ table.T
    np.testing.assert_allclose(table_scores(x, table), wide, atol=2e-5)
    np.testing.assert_allclose(scores, (wide**2).sum(), rtol=2e-5)
    np.testing.assert_allclose(gradient, 2 * wide @ table, atol=2e-5 * np.abs(wide @ table).max())
