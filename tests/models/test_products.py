import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlm_jax.models.products import batched_product, batched_scores

SHAPES = {"product": ((5, 4, 3), (5, 3, 2)), "scores": ((5, 4, 3), (5, 2, 3))}
WAYS = {"product": (batched_product, "bmk,bkn->bmn"), "scores": (batched_scores, "bmk,bnk->bmn")}


@pytest.mark.parametrize("name", WAYS)
def test_batched_products_and_their_gradients_are_those_of_einsum(name):
    random, (way, formula) = np.random.default_rng(0), WAYS[name]
    x, y = (jnp.asarray(random.normal(size=shape), jnp.float32) for shape in SHAPES[name])
    outputs, pull = jax.vjp(way, x, y)
    expected, pull_einsum = jax.vjp(lambda x, y: jnp.einsum(formula, x, y), x, y)
    gradient = jnp.asarray(random.normal(size=expected.shape), jnp.float32)
    np.testing.assert_allclose(outputs, expected, atol=1e-6)
    for ours, theirs in zip(pull(gradient), pull_einsum(gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("name", WAYS)
def test_no_gradient_contracts_the_rows_of_its_left_matrix(name):
    """XLA's library on a CPU takes no such product."""
    way, _ = WAYS[name]
    x, y = (jnp.zeros(shape) for shape in SHAPES[name])
    program = jax.make_jaxpr(lambda x, y, g: jax.vjp(way, x, y)[1](g))(x, y, way(x, y))
    products = [equation for equation in program.eqns if equation.primitive.name == "dot_general"]
    contracted = [equation.params["dimension_numbers"][0][0] for equation in products]
    assert len(contracted) >= 2 and all(axes == (2,) for axes in contracted)
