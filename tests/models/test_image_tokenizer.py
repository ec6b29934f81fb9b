"""Images to image tokens and back: what is rounded, what is learned, what dies and returns."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parameters import random_parameters
from vlm_jax.config.quantizers import FSQ, VQ, ImageTokenizerSettings
from vlm_jax.models.image_tokenizer import (
    Encoder,
    FiniteScalarQuantizer,
    ImageTokenizer,
    VectorQuantizer,
    to_depth,
    to_space,
)

SMALL = {"patch_size": 2, "widths": (8, 16), "depths": (1, 1)}


def scalar(features, levels):
    return FiniteScalarQuantizer(FSQ(levels=levels)).apply({}, jnp.asarray(features))


@given(st.lists(st.integers(3, 9), min_size=1, max_size=4).map(tuple), st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None)
def test_the_decoder_reads_the_dequantized_tokens(levels, seed):
    features = np.random.default_rng(seed).normal(0, 3, (2, 3, 2, len(levels))).astype(np.float32)
    quantized = scalar(features, levels)
    looked_up = FiniteScalarQuantizer(FSQ(levels=levels)).apply({}, quantized.tokens, method="dequantize")
    np.testing.assert_allclose(quantized.features, looked_up, atol=1e-6)
    assert quantized.tokens.min() >= 0 and quantized.tokens.max() < np.prod(levels)
    assert np.abs(quantized.features).max() <= 1


@pytest.mark.parametrize("levels", [(3,), (4,), (8, 5, 5, 5)])
def test_rounding_is_that_of_a_plain_loop(levels):
    """Section 3 of the paper, one number at a time: a tanh that reaches every level, then the nearest of them."""
    values = np.linspace(-4, 4, 41)
    for place, count in enumerate(levels):
        features = np.zeros((len(values), 1, 1, len(levels)), np.float32)
        features[..., place] = values[:, None, None]
        digits = np.asarray(scalar(features, levels).features)[:, 0, 0, place] * (count // 2)
        half, offset = (count - 1) * (1 + 1e-3) / 2, 0.5 if count % 2 == 0 else 0.0
        bounded = [np.tanh(value + np.arctanh(offset / half)) * half - offset for value in values]
        np.testing.assert_allclose(digits, np.round(bounded), atol=1e-5)
        assert set(np.round(digits).astype(int)) == set(range(-(count // 2), (count + 1) // 2))


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 8])
def test_a_number_learns_every_level_from_three_levels_on(levels):
    """Fitted to the lowest and to the highest level from an encoder's usual start; of two levels it stays at one."""

    def digit(features):
        return (
            FiniteScalarQuantizer(FSQ.model_construct(levels=(levels,)))
            .apply({}, features.reshape(-1, 1, 1, 1))
            .features.ravel()
        )

    start = jnp.asarray(np.random.default_rng(0).normal(0, 0.3, 64).astype(np.float32))
    ends = (0 - levels // 2) / (levels // 2), (levels - 1 - levels // 2) / (levels // 2)
    reached = []
    for end in ends:
        slope = jax.grad(lambda x, end=end: jnp.square(digit(x) - end).sum())
        fitted = jax.lax.fori_loop(0, 50, lambda _, x, slope=slope: x - 0.3 * slope(x), start)
        reached.append(float(jnp.mean(jnp.abs(digit(fitted) - end) < 1e-6)))
    assert reached == [1.0 if levels > 2 else 0.0, 1.0]


def test_every_code_is_one_combination_of_levels():
    levels = (3, 4, 3)
    tokens = jnp.arange(36).reshape(3, 3, 4)
    features = np.asarray(FiniteScalarQuantizer(FSQ(levels=levels)).apply({}, tokens, method="dequantize")).reshape(
        36, 3
    )
    wanted = {
        tuple((digit - count // 2) / (count // 2) for digit, count in zip(digits, levels, strict=True))
        for digits in itertools.product(*map(range, levels))
    }
    assert {tuple(row) for row in features.tolist()} == wanted


def test_rounding_lets_the_gradient_through():
    def total(features):
        return scalar(features, (8, 5)).features.sum()

    gradient = jax.grad(total)(jnp.full((1, 1, 1, 2), 0.3))
    half, offset = 7 * (1 + 1e-3) / 2, 0.5
    by_hand = half * (1 - np.tanh(0.3 + np.arctanh(offset / half)) ** 2) / 4
    np.testing.assert_allclose(gradient.reshape(2)[0], by_hand, rtol=1e-5)


@pytest.mark.parametrize(("encoder", "reached"), [("patchwise", 1), ("convolutional", 25)])
def test_how_far_an_encoder_sees(encoder, reached):
    """A pixel in the middle of 5 x 5 cells changes the numbers of its cell, or of those around it as well."""
    model = Encoder(ImageTokenizerSettings(encoder=encoder, patch_size=2, widths=(8, 8), depths=(0, 1)), 4)
    image = jax.random.normal(jax.random.key(1), (1, 20, 20, 3))
    variables, other = random_parameters(model.init, image), image.at[0, 10, 9].add(1)
    apply = jax.jit(model.apply)
    changed = np.any(apply(variables, image) != apply(variables, other), axis=-1)[0]
    assert changed[2, 2] and changed.sum() == reached


def codebook(size=12, width=3, **options):
    return VectorQuantizer(VQ(codebook_size=size, embedding_size=width, **options))


def test_a_codebook_takes_the_nearest_and_its_loss_is_the_papers():
    random = np.random.default_rng(0)
    features, book = random.normal(size=(2, 2, 3, 3)).astype(np.float32), random.normal(size=(12, 3)).astype(np.float32)
    features, book = jnp.asarray(features), jnp.asarray(book)
    rounded = codebook().apply({"params": {"codebook": book}}, features)
    distances = np.square(np.asarray(features)[..., None, :] - np.asarray(book)).sum(-1)
    np.testing.assert_array_equal(rounded.tokens, distances.argmin(-1))
    np.testing.assert_allclose(rounded.features, book[rounded.tokens], atol=1e-6)
    # Equation 3: both terms have the same value, and push different sides.
    np.testing.assert_allclose(rounded.loss, 1.25 * distances.min(-1).mean((1, 2)) / 3, rtol=1e-5)

    def loss(book, features):
        return codebook().apply({"params": {"codebook": book}}, features).loss.sum()

    to_book, to_features = jax.grad(loss, (0, 1))(book, features)
    np.testing.assert_allclose(to_features, 0.25 * 2 * (features - book[rounded.tokens]) / 18, rtol=1e-4, atol=1e-6)
    assert np.abs(np.asarray(to_book)).sum(-1).astype(bool).tolist() == np.isin(np.arange(12), rounded.tokens).tolist()


@pytest.mark.parametrize(("revive", "far"), [(True, 30), (True, 3), (False, 30)])
def test_dead_codes_return(revive, far):
    """All but one image token lie far away from every feature; at a rate that is slow beside how features differ,
    too."""
    random = np.random.default_rng(1)
    features = jnp.asarray(random.normal(size=(16, 4, 4, 3)).astype(np.float32))
    book = np.full((12, 3), far, np.float32) + random.normal(size=(12, 3)).astype(np.float32)
    book[0] = 0
    book = jnp.asarray(book)
    quantizer, optimizer = codebook(), optax.adam(far / 100)

    def loss(book, batch):
        return quantizer.apply({"params": {"codebook": book}}, batch, revive=revive).loss.mean()

    @jax.jit
    def step(book, state, batch):
        updates, state = optimizer.update(jax.grad(loss)(book, batch), state)
        return optax.apply_updates(book, updates), state

    state = optimizer.init(book)
    for number in range(150):
        book, state = step(book, state, features[number % 4 :: 4])  # batches differ, as a training's do
    used = len(np.unique(quantizer.apply({"params": {"codebook": book}}, features).tokens))
    assert used > 6 if revive else used == 1


@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 2, 4]))
@settings(max_examples=10, deadline=None)
def test_squares_are_put_together_as_they_were_taken_apart(rows, columns, side):
    image = np.random.default_rng(0).normal(size=(2, rows * side, columns * side, 3)).astype(np.float32)
    deep = to_depth(jnp.asarray(image), side)
    assert deep.shape == (2, rows, columns, 3 * side**2)
    np.testing.assert_array_equal(np.asarray(deep)[1, 0, 0], image[1, :side, :side].reshape(-1))
    np.testing.assert_array_equal(to_space(deep, side), image)


@pytest.mark.parametrize("quantizer", [FSQ(levels=(4, 3)), VQ(codebook_size=30, embedding_size=4)])
def test_encoding_and_decoding_are_the_two_halves_of_a_reconstruction(quantizer):
    model = ImageTokenizer(ImageTokenizerSettings(quantizer=quantizer, **SMALL))
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32))
    params = random_parameters(model.init, image)
    apply = jax.jit(model.apply, static_argnames="method")
    whole = apply(params, image)
    tokens = apply(params, image, method="encode")
    assert tokens.shape == (2, *model.settings.grid_size((8, 12))) == (2, 2, 3)
    assert int(tokens.max()) < quantizer.codebook_size
    np.testing.assert_array_equal(tokens, whole.tokens)
    np.testing.assert_allclose(apply(params, tokens, method="decode"), whole.image, atol=1e-5)
