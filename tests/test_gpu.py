"""On a GPU a step equals the CPU's, and its state is donated. `JAX_PLATFORMS=cuda,cpu pytest -m gpu` runs these."""

import jax
import numpy as np
import pytest

from vlm_jax.config.optimizers import SGD
from vlm_jax.config.run import TextTraining
from vlm_jax.config.trunk import TextInput
from vlm_jax.config.vqa import VQA, Model
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.tasks.vqa import batch_sums
from vlm_jax.training.optimizer import make_optimizer
from vlm_jax.training.parallel import METHODS
from vlm_jax.training.step import create_state, make_step
from vlm_jax.types import Batch


def gpus():
    try:
        return jax.devices("gpu")
    except RuntimeError:
        return []


pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason="needs a GPU")]

CONFIG = VQA(
    model=Model(hidden_dropout_prob=0.1, text=TextInput(vocab_size=50)),
    optimizer=SGD(learning_rate=0.1, warmup_steps=0, schedule="constant"),
    training=TextTraining(steps=10, batch_images=8),
)
MODEL = VisualLanguageModel(CONFIG.architecture, 5)


def make_batch():
    random = np.random.default_rng(0)
    return Batch(
        image=random.normal(size=(8, 32, 32, 3)).astype(np.float32),
        input_ids=random.integers(1, 50, (8, 3, 6)).astype(np.int32),
        text_mask=np.arange(6)[None, None] < random.integers(2, 7, (8, 3, 1)),
        answers=random.integers(0, 5, (8, 3, 1)).astype(np.int32),
        answer_weights=np.ones((8, 3, 1), np.float32),
        weight=np.ones((8, 3), np.float32),
        index=np.arange(8, dtype=np.int32),
    )


def loss_sums(params, batch, keys):
    inputs = (batch.image, batch.input_ids, batch.text_mask)
    logits = MODEL.apply({"params": params}, *inputs, keys=keys, method="task_logits")
    return batch_sums(logits, batch, label_smoothing=0.0)


def start(method, device):
    """The state and the compiled step, both on one device."""
    with jax.default_device(device):
        batch = make_batch()
        inputs = (batch.image, batch.input_ids, batch.text_mask)
        params = jax.jit(MODEL.init)(jax.random.key(0), *inputs)["params"]
        optimizer = make_optimizer(CONFIG.optimizer, params, steps=10)
        parallel = METHODS[method]([device])
        step = parallel.compile(make_step(CONFIG, loss_sums, optimizer, params, axis_name=parallel.axis_name))
        state = parallel.put(jax.device_get(create_state(params, optimizer, ema=False)))
    return parallel, state, step


@pytest.mark.parametrize("method", sorted(METHODS))
def test_three_steps_equal_the_cpus(method):
    ends = []
    for device in (gpus()[0], jax.devices("cpu")[0]):
        parallel, state, step = start(method, device)
        for _ in range(3):
            state, metrics = step(state, parallel.put_batch(make_batch()))
        ends.append((jax.device_get(parallel.take(state).params), float(metrics["loss"])))
    (ours, loss), (cpus, cpu_loss) = ends
    assert loss == pytest.approx(cpu_loss, rel=1e-5)
    for (path, a), (_, b) in zip(*map(jax.tree_util.tree_leaves_with_path, (ours, cpus)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5, err_msg=jax.tree_util.keystr(path))


def test_the_state_is_donated():
    parallel, state, step = start("jit", gpus()[0])
    step(state, parallel.put_batch(make_batch()))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
