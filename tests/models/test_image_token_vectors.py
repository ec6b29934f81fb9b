"""Vectors of image tokens: what image tokens share, and that products and rows are of the same table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlm_jax.config.quantizers import FSQ, VQ
from vlm_jax.models.image_token_vectors import ImageTokenVectors, start_alike
from vlm_jax.models.image_tokenizer import FiniteScalarQuantizer, fsq_digits

LEVELS = (3, 4, 3)


def made(mask_token=False, quantizer=None):
    module = ImageTokenVectors(quantizer or FSQ(levels=LEVELS), 8, std=0.5, mask_token=mask_token)
    return module, module.init(jax.random.key(0), jnp.arange(3), method="embed")


def test_digits_are_those_that_the_quantizer_reads():
    settings, middles = FSQ(levels=LEVELS), np.array(LEVELS) // 2
    numbers = (
        FiniteScalarQuantizer(settings).apply({}, jnp.arange(36).reshape(1, 6, 6), method="dequantize").reshape(36, 3)
    )
    np.testing.assert_allclose((fsq_digits(LEVELS) - middles) / middles, numbers, atol=1e-6)


@pytest.mark.parametrize("mask_token", [False, True])
def test_a_vector_is_the_sum_of_its_own_and_of_its_digits(mask_token):
    module, variables = made(mask_token)
    params, table = variables["params"], module.apply(variables, method="table")
    assert table.shape == (36 + mask_token, 8)
    for code in range(36):
        digits = [code % 3, code // 3 % 4, code // 12]
        parts = [params[f"digits_{place}"]["embedding"][digit] for place, digit in enumerate(digits)]
        np.testing.assert_allclose(table[code], params["embedding"][code] + sum(parts), atol=1e-6)
    if mask_token:
        np.testing.assert_array_equal(table[36], params["embedding"][36])
    tokens, x = jnp.array([[5, 23], [0, 5]]), jnp.ones((2, 8))
    np.testing.assert_array_equal(module.apply(variables, tokens, method="embed"), table[tokens])
    np.testing.assert_allclose(module.apply(variables, x, method="scores"), x @ table.T, atol=1e-5)


def test_what_is_learned_of_a_code_is_learned_of_those_like_it():
    module, variables = made()
    gradient = jax.grad(lambda given: module.apply(given, jnp.array([0]), method="embed").sum())(variables)["params"]
    moved = {
        name: np.flatnonzero(np.any(np.asarray(leaf["embedding"]), axis=1))
        for name, leaf in gradient.items()
        if name != "embedding"
    }
    assert {name: rows.tolist() for name, rows in moved.items()} == {f"digits_{place}": [0] for place in range(3)}


def test_of_a_codebook_each_code_has_its_own_alone():
    module, variables = made(quantizer=VQ(codebook_size=24))
    assert set(variables["params"]) == {"embedding"}
    np.testing.assert_array_equal(module.apply(variables, method="table"), variables["params"]["embedding"])


@pytest.mark.parametrize("quantizer", [FSQ(levels=(8, 5, 5)), VQ(codebook_size=200)])
def test_tokens_of_like_appearance_start_alike(quantizer):
    """The image tokens here look like one of two things; the hidden image token, which looks like nothing, keeps its
    vector."""
    module = ImageTokenVectors(quantizer, 256, std=0.5, mask_token=True)
    variables = module.init(jax.random.key(0), jnp.arange(3), method="embed")
    kind = np.random.default_rng(0).integers(0, 2, 200)
    appearance = np.where(kind[:, None], 1.0, -1.0) * np.random.default_rng(1).choice([-1.0, 1.0], (1, 12))
    started = start_alike(variables["params"], jnp.asarray(appearance, jnp.float32), key=jax.random.key(1))
    table, before = (np.asarray(module.apply({"params": p}, method="table")) for p in (started, variables["params"]))
    np.testing.assert_array_equal(table[200], before[200])
    assert table[:200].std() == pytest.approx(before[:200].std(), rel=0.05)
    unit = table[:200] / np.linalg.norm(table[:200], axis=1, keepdims=True)
    same = (kind[:, None] == kind[None]) & ~np.eye(200, dtype=bool)
    assert (unit @ unit.T)[same].mean() == pytest.approx(0.6, abs=0.1)
    assert (unit @ unit.T)[kind[:, None] != kind[None]].mean() == pytest.approx(-0.6, abs=0.1)
