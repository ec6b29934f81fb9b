"""The train step: sums over sums, one key an image, accumulation, freezing, and a guard against what is not finite."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import Features
from vlm_jax.config.optimizers import SGD, AdamW, Muon
from vlm_jax.config.run import TextTraining
from vlm_jax.config.vqa import VQA
from vlm_jax.errors import InputError
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.settings.changes import with_changes
from vlm_jax.tasks.vqa import batch_sums
from vlm_jax.training import optimizer as optimizer_module
from vlm_jax.training.optimizer import learning_rate_schedule, make_optimizer
from vlm_jax.training.parallel import METHODS
from vlm_jax.training.step import AccumulatedStep, create_state, example_keys, make_step, micro_batch
from vlm_jax.trees import flatten
from vlm_jax.types import Batch

ARCHITECTURE = Architecture(
    hidden_size=16, num_attention_heads=2, intermediate_size=32, num_layers=1, hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.1, attention_pattern="image_to_text", head="cls", image=Features(feature_size=8),
    text_feature_size=16, vocab_size=20,
)  # fmt: skip
CONFIG = VQA(
    optimizer=SGD(learning_rate=0.5, warmup_steps=0, schedule="constant", clip_norm=None),
    training=TextTraining(steps=10, batch_images=8),
)
MODEL = VisualLanguageModel(ARCHITECTURE, 5)


def make_batch(images=8, texts=3, seed=0):
    """Weights differ between images: averaging means would be wrong."""
    random = np.random.default_rng(seed)
    weight = (np.arange(texts)[None] <= random.integers(0, texts, (images, 1))).astype(np.float32)
    weight[-1] = 0
    return Batch(
        image=random.normal(size=(images, 4, 8)).astype(np.float32),
        input_ids=random.integers(1, 20, (images, texts, 6)).astype(np.int32),
        text_mask=np.arange(6)[None, None] < random.integers(2, 7, (images, texts, 1)),
        answers=random.integers(0, 5, (images, texts, 1)).astype(np.int32),
        answer_weights=np.ones((images, texts, 1), np.float32),
        weight=weight,
        index=np.arange(images, dtype=np.int32),
    )


def loss_sums(params, batch, keys):
    inputs = (batch.image, batch.input_ids, batch.text_mask)
    logits = MODEL.apply({"params": params}, *inputs, keys=keys, method="task_logits")
    return batch_sums(logits, batch, label_smoothing=0.1)


@functools.cache
def fresh():
    batch = make_batch()
    return jax.jit(MODEL.init)(jax.random.key(0), batch.image, batch.input_ids, batch.text_mask)["params"]


@functools.cache
def start(config):
    """A state and the compiled step, shared by the tests of one config."""
    params = fresh()
    optimizer = make_optimizer(config.optimizer, params, steps=config.training.steps)
    state = create_state(params, optimizer, ema=config.optimizer.ema is not None)
    return state, jax.jit(make_step(config, loss_sums, optimizer, params))


def with_optimizer(**changes):
    return with_changes(CONFIG, {f"optimizer.{name}": value for name, value in changes.items()})


def furthest(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(jnp.abs(x - y).max() / jnp.maximum(1.0, jnp.abs(x).max())) for x, y in pairs)


@pytest.mark.parametrize("way", ["jit", "pmap", "scanned"])
def test_accumulation_changes_nothing(monkeypatch, way):
    """Promise 7, with dropout on and weights that differ between micro-batches."""
    config = with_changes(CONFIG, {"training.accumulation": 4})
    parallel = METHODS["jit" if way == "scanned" else way](jax.devices()[:1])
    if way == "scanned":  # as elsewhere than on a CPU
        monkeypatch.setattr("vlm_jax.training.step.jax.default_backend", lambda: "gpu")
    state, step = start(CONFIG)
    optimizer = make_optimizer(config.optimizer, state.params, steps=config.training.steps)
    micro_step = make_step(config, loss_sums, optimizer, state.params, axis_name=parallel.axis_name)
    monkeypatch.undo()
    assert isinstance(micro_step, AccumulatedStep) == (way != "scanned")
    own = jax.tree.map(jnp.copy, state)  # the step takes it
    compiled, put_state, put_batch = parallel.compile(micro_step), parallel.put(own), parallel.put_batch(make_batch())
    whole_batch, whole_metrics = step(state, make_batch())
    with jax.transfer_guard("disallow"):
        split_batch, split_metrics = compiled(put_state, put_batch)
    split_batch = parallel.take(split_batch)
    assert furthest(whole_batch.params, split_batch.params) < 1e-6
    assert abs(float(whole_metrics["loss"] - split_metrics["loss"])) < 1e-5 * float(whole_metrics["loss"])
    assert whole_metrics["weight"] == split_metrics["weight"] == make_batch().weight.sum()


def test_micro_batches_hold_every_image_once():
    split = [micro_batch(make_batch(), index, 4) for index in range(4)]
    assert split[0].image.shape == (2, 4, 8)
    np.testing.assert_array_equal(np.sort(np.ravel([batch.index for batch in split])), np.arange(8))
    np.testing.assert_array_equal(split[1].index, [1, 5])


def test_one_text_per_image_has_the_same_loss():
    """The layout [I, K] and the same questions as [I * K, 1] have one loss and one gradient."""
    state, _ = start(CONFIG)
    batch = make_batch()
    texts = batch.weight.shape[1]
    flat = Batch(
        np.repeat(batch.image, texts, axis=0),
        *(x.reshape(-1, 1, *x.shape[2:]) for x in batch[1:6]),
        np.arange(8 * texts, dtype=np.int32),
    )
    loss = jax.jit(jax.value_and_grad(lambda params, batch: loss_sums(params, batch, None).loss))
    (a, gradient_a), (b, gradient_b) = loss(state.params, batch), loss(state.params, flat)
    assert abs(float(a - b)) < 1e-5 * float(a)
    assert furthest(gradient_a, gradient_b) < 1e-5


def test_padding_texts_and_images_do_not_count():
    state, step = start(CONFIG)
    batch = make_batch()
    empty = batch.weight == 0
    changed = batch._replace(
        answers=np.where(empty[..., None], 4 - batch.answers, batch.answers),
        input_ids=np.where(empty[..., None], 19 - batch.input_ids, batch.input_ids),
    )
    (a, _), (b, _) = step(state, batch), step(state, changed)
    assert furthest(a.params, b.params) == 0


def test_keys_depend_on_seed_step_and_position_only():
    keys = example_keys(3, jnp.int32(5), jnp.arange(8))
    np.testing.assert_array_equal(
        jax.random.key_data(keys[2:4]), jax.random.key_data(example_keys(3, jnp.int32(5), jnp.arange(2, 4)))
    )
    assert len(np.unique(jax.random.key_data(keys), axis=0)) == 8
    assert not np.array_equal(
        jax.random.key_data(keys), jax.random.key_data(example_keys(3, jnp.int32(6), jnp.arange(8)))
    )


def test_dropout_moves_with_the_step():
    state, step = start(CONFIG)
    again, other = step(state, make_batch()), step(state._replace(step=jnp.int32(1)), make_batch())
    assert step(state, make_batch())[1]["loss"] == again[1]["loss"] != other[1]["loss"]


def test_an_update_that_is_not_finite_is_not_applied():
    state, step = start(with_optimizer(kind="adamw"))
    broken = make_batch()
    broken.image[2] = np.nan
    after, metrics = step(state, broken)
    assert not metrics["finite"]
    assert furthest(state, after) == 0 and int(after.step) == 0
    after, metrics = step(state, make_batch())
    assert metrics["finite"] and int(after.step) == 1 and furthest(state.params, after.params) > 0


def test_frozen_parameters_stay_and_have_no_optimizer_state():
    state, step = start(with_optimizer(kind="adamw", frozen=("^text/", "image_fc"), clip_norm=1.0))
    after, _ = step(state, make_batch())
    assert furthest(state.params["text"], after.params["text"]) == 0
    assert furthest(state.params["embed"]["image_fc"], after.params["embed"]["image_fc"]) == 0
    assert furthest(state.params["trunk"], after.params["trunk"]) > 0
    trained = start(with_optimizer(kind="adamw"))[0]
    size = lambda tree: sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
    frozen = size(state.params["text"]) + size(state.params["embed"]["image_fc"])
    assert size(trained.opt_state) - size(state.opt_state) == 2 * frozen


def orthogonal(gradient):
    """Five steps of Newton and Schulz as published with Muon, in NumPy."""
    x = gradient.astype(np.float64) / np.linalg.norm(gradient)
    x = x.T if x.shape[0] > x.shape[1] else x
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if gradient.shape[0] > gradient.shape[1] else x


def test_muon_turns_the_matrices_of_the_trunk_and_adam_the_rest():
    both = [with_optimizer(kind=name, weight_decay=0.1, learning_rate=0.1).optimizer for name in ("muon", "adamw")]
    params = start(CONFIG)[0].params
    random = np.random.default_rng(0)
    gradients = jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), params)
    muon, adam = (
        optimizer.update(gradients, optimizer.init(params), params)[0]
        for optimizer in (make_optimizer(settings, params, steps=10) for settings in both)
    )
    turned = 0
    for path, update in flatten(muon).items():
        if path.startswith("trunk/") and update.ndim == 2:
            expected = 0.2 * max(update.shape) ** 0.5 * orthogonal(flatten(gradients)[path])
            np.testing.assert_allclose(update, -0.1 * (expected + 0.1 * flatten(params)[path]), rtol=1e-3, atol=1e-5)
            turned += 1
        else:
            np.testing.assert_array_equal(update, flatten(adam)[path])
    assert turned == 6


def test_muon_takes_a_convolution_as_its_matrix():
    """A convolution [k, k, in, out] and the matrix [k k in, out] have the same updates; what is frozen has no state."""
    random, shape = np.random.default_rng(0), (3, 3, 4, 8)
    kernels = [random.normal(size=shape).astype(np.float32) for _ in range(4)]
    settings = Muon(matrices=("^image/", "^head/"), frozen=("^head/",), no_decay=(), clip_norm=None)
    updates = []
    for image_shape in (shape, (36, 8)):
        params, *gradients = (
            {"image": {"kernel": kernel.reshape(image_shape)}, "head": {"kernel": kernel}} for kernel in kernels
        )
        optimizer = make_optimizer(settings, params, steps=10)
        state = optimizer.init(params)
        assert np.prod(shape) <= sum(leaf.size for leaf in jax.tree.leaves(state)) < np.prod(shape) + 10
        for gradient in gradients:
            update, state = optimizer.update(gradient, state, params)
        updates.append(update["image"]["kernel"])
    np.testing.assert_array_equal(updates[0].reshape(36, 8), updates[1])
    assert np.abs(updates[1]).max() > 0


def test_muon_is_float32_on_every_device():
    """TF32's rounding would grow from step to step."""
    with jax.default_matmul_precision("tensorfloat32"):
        program = jax.make_jaxpr(optimizer_module._orthogonal)(jnp.ones((1, 8, 4)))
    precisions = [eqn.params["precision"] for eqn in program.eqns if eqn.primitive.name == "dot_general"]
    assert len(precisions) > 5 and set(precisions) == {(jax.lax.Precision.HIGHEST,) * 2}


def test_muon_uses_nesterov_momentum():
    """The second step by hand: momentum 0.95, and Nesterov's look ahead (bias-corrected, as optax's)."""
    settings = with_optimizer(kind="muon", weight_decay=0.0, learning_rate=1.0).optimizer
    params = start(CONFIG)[0].params
    random, name = np.random.default_rng(0), "trunk/layer_0/attention/query/kernel"
    optimizer = make_optimizer(settings, params, steps=10)
    state, seen = optimizer.init(params), []
    for _ in range(2):
        gradients = jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), params)
        updates, state = optimizer.update(gradients, state, params)
        seen.append(flatten(gradients)[name])
    first, second = seen
    momentum = 0.05 * (0.95 * first + second)
    ahead = 0.95 * momentum / (1 - 0.95**3) + 0.05 * second / (1 - 0.95**2)
    update = flatten(updates)[name]
    np.testing.assert_allclose(update, -0.2 * max(update.shape) ** 0.5 * orthogonal(ahead), rtol=1e-3, atol=1e-5)


def test_muon_needs_a_trunk_that_learns():
    params = start(CONFIG)[0].params
    with pytest.raises(InputError, match="none is trained; choose 'adamw'"):
        make_optimizer(with_optimizer(kind="muon", frozen=("^trunk/",)).optimizer, params, steps=10)


def test_muon_spares_what_is_frozen():
    state, step = start(with_optimizer(kind="muon", learning_rate=0.01, frozen=("^trunk/layer_0/attention/", "^head/")))
    after, _ = step(state, make_batch())
    for still in (lambda p: p["trunk"]["layer_0"]["attention"], lambda p: p["head"]):
        assert furthest(still(state.params), still(after.params)) == 0
    assert furthest(state.params["trunk"]["layer_0"]["output"], after.params["trunk"]["layer_0"]["output"]) > 0


def test_learning_rate_factors_by_path():
    state, step = start(with_optimizer(multipliers=(("^head/", 0.25),)))
    plain_state, plain_step = start(CONFIG)
    plain = plain_step(plain_state, make_batch())[0]
    scaled = step(state, make_batch())[0]
    moved = jax.tree.map(lambda a, b: a - b, plain.params["head"], state.params["head"])
    less = jax.tree.map(lambda a, b: a - b, scaled.params["head"], state.params["head"])
    assert furthest(jax.tree.map(lambda x: x / 4, moved), less) < 1e-6
    assert furthest(plain.params["trunk"], scaled.params["trunk"]) == 0


@pytest.mark.parametrize("setting", ["frozen", "no_decay", "multipliers", "matrices"])
def test_a_pattern_that_matches_nothing_is_refused(setting):
    pattern = "hed/classifier/kernel"
    value = ((pattern, 2.0),) if setting == "multipliers" else (pattern,)
    with pytest.raises(
        InputError, match=rf"optimizer.{setting} '{pattern}' matches no parameter; choose one of: .*head/classifier, "
    ):
        start(with_optimizer(kind="muon", **{setting: value}))
    with pytest.raises(InputError, match="not a regular expression"):
        start(with_optimizer(kind="adamw", frozen=("(",)))


def test_decay_spares_biases_norms_and_embeddings():
    no_loss = with_optimizer(kind="adamw", weight_decay=0.1, learning_rate=0.1)
    state, _ = start(no_loss)
    optimizer = make_optimizer(no_loss.optimizer, state.params, steps=10)
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    updates, _ = optimizer.update(zeros, optimizer.init(state.params), state.params)
    assert furthest(updates["text"], zeros["text"]) == 0
    assert furthest(updates["embed"]["norm"], zeros["embed"]["norm"]) == 0
    kernel = state.params["head"]["pooler"]["kernel"]
    np.testing.assert_allclose(updates["head"]["pooler"]["kernel"], -0.01 * kernel, rtol=1e-5)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_schedule_counts_optimizer_steps(schedule):
    settings = AdamW(learning_rate=1.0, warmup_steps=4, schedule=schedule)
    rates = [float(learning_rate_schedule(settings, 20)(step)) for step in range(21)]
    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-6)
    assert rates[20] == pytest.approx(1.0 if schedule == "constant" else 0.0, abs=1e-6)
    assert all(a >= b for a, b in itertools.pairwise(rates[4:]))


def test_moving_average_follows_the_parameters():
    state, step = start(with_optimizer(ema=0.99))
    after, _ = step(state, make_batch())
    expected = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, state.params, after.params)
    assert furthest(after.ema, expected) < 1e-6


def test_clipping_bounds_the_update():
    state, step = start(with_optimizer(clip_norm=1e-3))
    after, metrics = step(state, make_batch())
    moved = optax.tree.norm(jax.tree.map(lambda a, b: a - b, after.params, state.params))
    assert float(metrics["gradient_norm"]) > 1e-3
    assert float(moved) == pytest.approx(0.5 * 1e-3, rel=1e-3)
