"""Who sees whom: promises 1 (no word peeks) and 2 (padding is invisible), and the shared image side."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlm_jax.config import ImageEncoder, Model, TextEncoder
from vlm_jax.models.attention import PATTERNS, attend, attention_mask
from vlm_jax.models.vlm import VisualLanguageModel

SETTINGS = Model(
    width=32,
    heads=4,
    mlp_width=64,
    image=ImageEncoder(cnn="features", features=8, max_positions=8),
    text=TextEncoder(width=16, vocabulary_size=50, max_positions=8),
)
LENGTHS = jnp.array([[7, 3, 2], [5, 6, 7]])
IDS = jax.random.randint(jax.random.key(1), (2, 3, 7), 1, 50)
MASK = jnp.arange(7)[None, None] < LENGTHS[:, :, None]
IMAGE = jax.random.normal(jax.random.key(2), (2, 5, 8))


def shaken(tree, std=0.2):
    """Weights large enough that every part of the model matters."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    return structure.unflatten([x + std * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)])


def build(pattern, **changes):
    model = VisualLanguageModel(dataclasses.replace(SETTINGS, pattern=pattern, **changes), 5)
    return jax.jit(model.apply), shaken(jax.jit(model.init)(jax.random.key(0), IMAGE, IDS, MASK))


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_padding_is_invisible(pattern):
    apply, params = build(pattern)
    before = apply(params, IMAGE, IDS, MASK)
    after = apply(params, IMAGE, jnp.where(MASK, IDS, 49 - IDS), MASK)
    assert jnp.array_equal(before.logits, after.logits)
    assert jnp.array_equal(before.image, after.image)
    assert jnp.array_equal(before.text[MASK], after.text[MASK])


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_hidden_image_is_invisible(pattern):
    apply, params = build(pattern)
    hidden = jnp.zeros((2, 1), bool)
    before = apply(params, IMAGE, IDS, MASK, image_mask=hidden)
    after = apply(params, IMAGE + 1.0, IDS, MASK, image_mask=hidden)
    assert jnp.array_equal(before.text, after.text)
    if PATTERNS[pattern][1][0]:
        assert not jnp.array_equal(before.text, apply(params, IMAGE, IDS, MASK).text)


def test_no_word_peeks():
    apply, params = build("prefix")
    full = jnp.ones_like(MASK)
    before = apply(params, IMAGE, IDS, full)
    for t in range(1, 7):
        after = apply(params, IMAGE, IDS.at[:, :, t].set(51 - IDS[:, :, t]), full)
        assert jnp.array_equal(before.text[:, :, :t], after.text[:, :, :t]), t
        assert jnp.array_equal(before.image, after.image)
        assert not jnp.array_equal(before.text[:, :, t:], after.text[:, :, t:])


def sees(apply, params):
    """bool[G + T, G + T]: does output n move with input m? From the gradient through every layer."""
    image, words = IMAGE[:1], jax.random.normal(jax.random.key(5), (1, 1, 7, 16))

    def outputs(image, words):
        out = apply(params, image, words, jnp.ones((1, 1, 7), bool))
        return jnp.concatenate([out.image[:, 0], out.text[:, 0]], axis=1)[0]

    by_image, by_words = jax.jacrev(outputs, argnums=(0, 1))(image, words)
    moves = jnp.concatenate([jnp.abs(by_image).sum((1, 2, 4)), jnp.abs(by_words).sum((1, 2, 3, 5))], axis=-1)
    return np.asarray(moves > 0)


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_every_path_is_allowed_by_the_pattern(pattern):
    apply, params = build(pattern)
    kind = jnp.array([0] * 5 + [1] * 7)
    once = np.asarray(attention_mask(pattern, kind, jnp.ones(12, bool))) | np.eye(12, dtype=bool)
    twice = (once.astype(int) @ once.astype(int)) > 0  # two layers
    np.testing.assert_array_equal(sees(apply, params), twice)


@pytest.mark.parametrize("pattern", [p for p in sorted(PATTERNS) if PATTERNS[p][0][1] == 0])
def test_the_shared_image_side_equals_the_concatenated_one(pattern, monkeypatch):
    apply, params = build(pattern)
    shared = apply(params, IMAGE, IDS, MASK)
    monkeypatch.setattr("vlm_jax.models.fusion.NONE", -1)  # never take the shared way
    apply, _ = build(pattern)
    whole = apply(params, IMAGE, IDS, MASK)
    assert shared.image.shape[1] == 1 and whole.image.shape[1] == 3
    np.testing.assert_allclose(shared.logits, whole.logits, atol=2e-5)
    np.testing.assert_allclose(jnp.broadcast_to(shared.image, whole.image.shape), whole.image, atol=2e-5)


@pytest.mark.parametrize("pattern", ["bidirectional", "image_to_text"])
def test_question_slots_do_not_meet(pattern):
    apply, params = build(pattern)
    together = apply(params, IMAGE, IDS, MASK)
    for slot in range(3):
        alone = apply(params, IMAGE, IDS[:, slot : slot + 1], MASK[:, slot : slot + 1])
        np.testing.assert_allclose(together.logits[:, slot], alone.logits[:, 0], atol=2e-5)


@pytest.mark.parametrize("changes", [{"remat": True}, {"scan_layers": True}, {"remat": True, "scan_layers": True}])
def test_remat_and_scan_change_nothing(changes):
    rates = {"dropout": 0.1, "attention_dropout": 0.1}
    plain, params = build("image_to_text", **rates)
    other, _ = build("image_to_text", **rates, **changes)
    keys = jax.random.split(jax.random.key(3), 2)

    def gradient(apply):
        return jax.jit(jax.grad(lambda p: jnp.square(apply(p, IMAGE, IDS, MASK, keys=keys).logits).sum()))(params)

    a, b = jax.tree.leaves(gradient(plain)), jax.tree.leaves(gradient(other))
    scale = max(float(jnp.abs(x).max()) for x in a)
    assert max(float(jnp.abs(x - y).max()) for x, y in zip(a, b, strict=True)) < 1e-5 * scale


def test_a_query_that_sees_nothing_gets_nothing():
    query = key = value = jnp.ones((1, 1, 3, 2, 4))
    mask = jnp.array([[True, False, False], [False, False, False], [True, True, True]])[None, None]
    out = attend(query, key, value, mask=mask)
    assert jnp.array_equal(out[0, 0, 1], jnp.zeros((2, 4)))
    assert jnp.allclose(out[0, 0, 0], 1.0)


def test_dropout_is_one_mask_an_example():
    apply, params = build("bidirectional", dropout=0.3)
    keys = jax.random.split(jax.random.key(3), 2)
    both = apply(params, IMAGE, IDS, MASK, keys=keys).logits
    one = apply(params, IMAGE[1:], IDS[1:], MASK[1:], keys=keys[1:]).logits
    np.testing.assert_allclose(both[1:], one, atol=1e-5)
    assert not jnp.allclose(both, apply(params, IMAGE, IDS, MASK).logits)
