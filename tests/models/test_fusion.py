"""Who sees whom, in every fusion: no word peeks, padding is invisible, and the shared image side."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.architectures import PAIRINGS
from tests.parameters import random_parameters
from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import Features
from vlm_jax.models.attention import PAST, PATTERNS, attend, attention_mask
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.settings.changes import with_changes

VQA = [(fusion, patterns[0]) for fusion, (patterns, _) in PAIRINGS["vqa"].items()]
# What the tasks use, and what else the fusions can do.
PAIRS = sorted(
    {
        (fusion, attention_pattern)
        for fusions in PAIRINGS.values()
        for fusion, (patterns, _) in fusions.items()
        for attention_pattern in patterns
    }
    | {("concat", attention_pattern) for attention_pattern in PATTERNS}
    | {
        ("cross", attention_pattern)
        for attention_pattern in ("image_to_text", "prefix", "causal", "text_to_image", "autoregressive")
    }
)
SETTINGS = Architecture(
    hidden_size=32,
    num_attention_heads=4,
    num_layers=3,
    intermediate_size=64,
    image=Features(feature_size=8),
    max_image_positions=8,
    text_feature_size=16,
    vocab_size=50,
    max_position_embeddings=8,
)
LENGTHS = jnp.array([[7, 3, 2], [5, 6, 7]])
IDS = jax.random.randint(jax.random.key(1), (2, 3, 7), 1, 50)
MASK = jnp.arange(7)[None, None] < LENGTHS[:, :, None]
IMAGE = jax.random.normal(jax.random.key(2), (2, 5, 8))
ALL_SEEN = jnp.ones((2, 5), bool)


@functools.cache
def build(fusion, attention_pattern, **changes):
    """The compiled model and its parameters; tests of the same model share them."""
    head = PAIRINGS["vqa"][fusion][1][0]
    changes = {"fusion": fusion, "attention_pattern": attention_pattern, "head": head, **changes}
    model = VisualLanguageModel(with_changes(SETTINGS, changes), 5)
    return jax.jit(model.apply, static_argnames="method"), random_parameters(model.init, IMAGE, IDS, MASK)


def run(fusion, attention_pattern, image=IMAGE, ids=IDS, mask=MASK, seen=ALL_SEEN):
    """One program for each fusion and pattern, whatever is seen."""
    apply, params = build(fusion, attention_pattern)
    return apply(params, image, ids, mask, image_mask=seen)


@pytest.mark.parametrize(("fusion", "attention_pattern"), PAIRS)
def test_padding_is_invisible(fusion, attention_pattern):
    before = run(fusion, attention_pattern)
    after = run(fusion, attention_pattern, ids=jnp.where(MASK, IDS, 49 - IDS))
    assert jnp.array_equal(before.logits, after.logits)
    assert jnp.array_equal(before.image, after.image)
    assert jnp.array_equal(before.text[MASK], after.text[MASK])


@pytest.mark.parametrize(("fusion", "attention_pattern"), PAIRS)
def test_masked_image_is_invisible(fusion, attention_pattern):
    before = run(fusion, attention_pattern, seen=~ALL_SEEN)
    after = run(fusion, attention_pattern, IMAGE + 1.0, seen=~ALL_SEEN)
    assert jnp.array_equal(before.text, after.text)
    assert jnp.array_equal(before.logits, after.logits)
    if attention_pattern not in ("text_to_image", "autoregressive", "dual_encoder"):
        assert not jnp.array_equal(before.text, run(fusion, attention_pattern).text)


@pytest.mark.parametrize("head", ["product", "concatenation"])
def test_a_masked_position_is_not_in_the_mean(head):
    apply, params = build("late", "dual_encoder", head=head)
    partly_seen = jnp.array([[True, True, False, True, False]] * 2)
    before = apply(params, IMAGE, IDS, MASK, image_mask=partly_seen).logits
    assert jnp.array_equal(before, apply(params, IMAGE.at[:, 2].add(1.0), IDS, MASK, image_mask=partly_seen).logits)
    assert not jnp.array_equal(before, apply(params, IMAGE.at[:, 1].add(1.0), IDS, MASK, image_mask=partly_seen).logits)
    few = apply(params, IMAGE[:, jnp.array([0, 1])], IDS, MASK).logits  # fewer cells, the same positions
    seen = jnp.array([[True, True, False, False, False]] * 2)
    np.testing.assert_allclose(apply(params, IMAGE, IDS, MASK, image_mask=seen).logits, few, atol=2e-5)


@pytest.mark.parametrize("attention_pattern", ["prefix", "causal"])
@pytest.mark.parametrize("fusion", ["concat", "cross"])
def test_no_word_peeks(fusion, attention_pattern):
    full = jnp.ones_like(MASK)
    before = run(fusion, attention_pattern, mask=full)
    for t in range(1, 7):
        after = run(fusion, attention_pattern, ids=IDS.at[:, :, t].set(51 - IDS[:, :, t]), mask=full)
        assert jnp.array_equal(before.text[:, :, :t], after.text[:, :, :t]), t
        assert jnp.array_equal(before.image, after.image)
        assert not jnp.array_equal(before.text[:, :, t:], after.text[:, :, t:])


def attended(fusion, attention_pattern):
    """bool[G + T, G + T]: does output n move when input m is another one? Through three layers, in one program."""
    full = jnp.ones_like(MASK)

    def outputs(image=IMAGE, ids=IDS):
        output = run(fusion, attention_pattern, image, ids, full)
        return np.concatenate([np.asarray(x[0, 0]) for x in (output.image, output.text)])

    moved = [outputs(image=IMAGE.at[:, place].add(3.0)) for place in range(5)]
    moved += [outputs(ids=IDS.at[:, :, place].set(51 - IDS[:, :, place])) for place in range(7)]
    return np.stack([(outputs() != other).any(-1) for other in moved], axis=1)


def closure(once):
    """Every path of allowed steps (Warshall 1962): through whichever tokens, over however many layers."""
    reached = once | np.eye(len(once), dtype=bool)
    for middle in range(len(once)):
        reached |= reached[:, middle : middle + 1] & reached[middle]
    return reached


def allowed(attention_pattern):
    return np.asarray(attention_mask(attention_pattern, jnp.array([0] * 5 + [1] * 7), jnp.ones(12, bool)))


@pytest.mark.parametrize(("fusion", "attention_pattern"), PAIRS)
def test_every_path_is_one_that_the_pattern_allows(fusion, attention_pattern):
    np.testing.assert_array_equal(attended(fusion, attention_pattern), closure(allowed(attention_pattern)))


@pytest.mark.parametrize("attention_pattern", [p for p in sorted(PATTERNS) if PAST in PATTERNS[p][1]])
def test_no_path_leads_to_a_later_word(attention_pattern):
    """Neither directly nor through image tokens, over any number of layers."""
    np.testing.assert_array_equal(closure(allowed(attention_pattern))[5:, 5:], np.tri(7, dtype=bool))


@pytest.mark.parametrize("attention_pattern", [p for p in sorted(PATTERNS) if PATTERNS[p][0][1] == 0])
def test_the_shared_image_side_equals_the_concatenated_one(attention_pattern, monkeypatch):
    apply, params = build("concat", attention_pattern)
    shared = apply(params, IMAGE, IDS, MASK)
    monkeypatch.setattr("vlm_jax.models.fusion.NONE", -1)  # never take the shared way
    apply, _ = build.__wrapped__("concat", attention_pattern)
    whole = apply(params, IMAGE, IDS, MASK)
    assert shared.image.shape[1] == 1 and whole.image.shape[1] == 3
    np.testing.assert_allclose(shared.logits, whole.logits, atol=2e-5)
    np.testing.assert_allclose(jnp.broadcast_to(shared.image, whole.image.shape), whole.image, atol=2e-5)


@pytest.mark.parametrize(("fusion", "attention_pattern"), PAIRS)
def test_question_slots_do_not_meet(fusion, attention_pattern):
    """Bit for bit, whatever the other slots hold."""
    before = run(fusion, attention_pattern)
    for slot in range(3):
        other = (jnp.arange(3) != slot)[None, :, None]
        after = run(fusion, attention_pattern, ids=jnp.where(other, 50 - IDS, IDS), mask=jnp.where(other, True, MASK))
        assert jnp.array_equal(before.logits[:, slot], after.logits[:, slot])
        assert not jnp.array_equal(before.logits, after.logits)


@pytest.mark.parametrize(("fusion", "attention_pattern"), VQA)
def test_a_question_alone_is_that_among_others(fusion, attention_pattern):
    together = run(fusion, attention_pattern)
    for slot in range(3):
        alone = run(fusion, attention_pattern, ids=IDS[:, slot : slot + 1], mask=MASK[:, slot : slot + 1])
        np.testing.assert_allclose(together.logits[:, slot], alone.logits[:, 0], atol=2e-5)


@pytest.mark.parametrize(
    ("fusion", "attention_pattern", "head"),
    [
        pytest.param(
            fusion,
            attention_pattern,
            head,
            marks=() if attention_pattern == patterns[0] and head in (heads[0], "per_token") else pytest.mark.slow,
        )
        for fusion, (patterns, heads) in PAIRINGS["vqa"].items()
        for attention_pattern in patterns
        for head in heads
    ],
)
def test_the_answer_alone_is_that_of_the_whole(fusion, attention_pattern, head):
    """Of the last layer only what [CLS] needs is computed; the logits stay."""
    usual = PAIRINGS["vqa"][fusion][1][0]
    apply, params = build(fusion, attention_pattern, **({} if head == usual else {"head": head}))
    whole = apply(params, IMAGE, IDS, MASK, image_mask=ALL_SEEN).logits
    alone = apply(params, IMAGE, IDS, MASK, method="task_logits")
    np.testing.assert_allclose(alone, whole[:, :, 5] if head == "per_token" else whole, atol=2e-5)


BOTH = {"remat": True, "scan_layers": True}


@pytest.mark.parametrize(
    ("fusion", "attention_pattern", "changes"),
    [
        (*VQA[0], BOTH),
        *(pytest.param(*pair, BOTH, marks=pytest.mark.slow) for pair in VQA[1:]),
    ],
)
def test_remat_and_scan_change_nothing(fusion, attention_pattern, changes):
    # The first and the last are never scanned.
    rates = {"hidden_dropout_prob": 0.1, "num_layers": 4, "use_qk_norm": True}
    plain, params = build(fusion, attention_pattern, **rates)
    other, _ = build(fusion, attention_pattern, **rates, **changes)
    params = jax.tree.map(jnp.asarray, params)
    keys = jax.random.split(jax.random.key(3), 2)

    def gradient(apply):
        return jax.jit(jax.grad(lambda p: jnp.square(apply(p, IMAGE, IDS, MASK, keys=keys).logits).sum()))(params)

    a, b = jax.tree.leaves(gradient(plain)), jax.tree.leaves(gradient(other))
    scale = max(float(jnp.abs(x).max()) for x in a)
    assert max(float(jnp.abs(x - y).max()) for x, y in zip(a, b, strict=True)) < 1e-5 * scale


def test_a_query_that_sees_nothing_gets_nothing():
    query = jnp.ones((1, 1, 3, 2, 4))
    key = value = query.swapaxes(2, 3)
    mask = jnp.array([[True, False, False], [False, False, False], [True, True, True]])[None, None]
    out = attend(query, [(key, value)], mask=mask)
    assert jnp.array_equal(out[0, 0, 1], jnp.zeros((2, 4)))
    assert jnp.allclose(out[0, 0, 0], 1.0)


@pytest.mark.parametrize(
    ("fusion", "attention_pattern"),
    [pytest.param(*pair, marks=() if pair[0] in ("concat", "co_attention") else pytest.mark.slow) for pair in VQA],
)
def test_dropout_is_one_mask_an_example(fusion, attention_pattern):
    apply, params = build(
        fusion, attention_pattern, num_layers=1, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3
    )
    keys = jax.random.split(jax.random.key(3), 2)
    both = apply(params, IMAGE, IDS, MASK, keys=keys).logits
    second = apply(params, IMAGE[1:], IDS[1:], MASK[1:], keys=keys[1:]).logits
    np.testing.assert_allclose(both[1:], second, atol=1e-5)
    assert not jnp.allclose(both, apply(params, IMAGE, IDS, MASK).logits)
