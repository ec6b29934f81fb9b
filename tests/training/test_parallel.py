"""Promise 6: devices do not matter. One device, four under jit and four under pmap train alike, accumulating or not."""

import dataclasses
import functools
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple
from unittest.mock import MagicMock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vlm_jax.config.captioning import Captioning
from vlm_jax.config.captioning import Model as CaptioningModel
from vlm_jax.config.encoders import SmallCNN
from vlm_jax.config.image_generation import ImageGeneration, TrainedImageTokenizer
from vlm_jax.config.image_generation import Model as GenerationModel
from vlm_jax.config.image_tokenizer import ImageTokenizer, NoisyImageTokenizer
from vlm_jax.config.optimizers import SGD
from vlm_jax.config.quantizers import FSQ
from vlm_jax.config.run import TextTraining, Training
from vlm_jax.config.trunk import TextInput
from vlm_jax.config.vqa import VQA
from vlm_jax.config.vqa import Model as VQAModel
from vlm_jax.data.answers import AnswerVocabulary
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.image_settings import AugmentedImages, ImageInput
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.data.user_files.table import TableCaptions
from vlm_jax.settings.changes import with_changes
from vlm_jax.tasks import task_class
from vlm_jax.tasks.trained_tokenizer import TrainedTokenizer, save_tokenizer
from vlm_jax.training.devices import choose_devices
from vlm_jax.training.optimizer import make_optimizer
from vlm_jax.training.parallel import METHODS, compiled_first
from vlm_jax.training.step import TrainState, create_state, make_step
from vlm_jax.trees import flatten
from vlm_jax.types import Batch

ROOT = Path(__file__).parent.parent.parent
TRUNK = {
    "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_layers": 1, "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1, "text": TextInput(vocab_size=20),
}  # fmt: skip
CNN = SmallCNN(stem_width=4, widths=(8,), blocks=(0,))
TOKENIZER = {"quantizer": FSQ(levels=(3, 3)), "patch_size": 4, "widths": (8, 8), "depths": (1, 0)}
SIZE = (16, 16)
RATE = 0.5
COMMON = {
    "optimizer": SGD(learning_rate=RATE, warmup_steps=0, schedule="constant", clip_norm=None),
    "training": TextTraining(steps=3, batch_images=8, label_smoothing=0.1),
}
PLAIN = COMMON | {"training": Training(steps=3, batch_images=8)}
FILES = TableCaptions(images=Path("images"), train=(Path("rows.jsonl"),))
CONFIGS = {
    "vqa": VQA(image=AugmentedImages(size=SIZE), model=VQAModel(image=CNN, **TRUNK), **COMMON),
    "captioning": Captioning(image=AugmentedImages(size=SIZE), model=CaptioningModel(image=CNN, **TRUNK), **COMMON),
    "image_tokenizer": ImageTokenizer(
        image=AugmentedImages(size=SIZE), image_tokenizer=NoisyImageTokenizer(noise=8.0, **TOKENIZER), **PLAIN
    ),
    "image_generation": ImageGeneration(
        data=FILES,
        image=ImageInput(size=SIZE),
        model=GenerationModel(**TRUNK),
        image_tokenizer=TrainedImageTokenizer(run=Path("run"), **TOKENIZER),
        **COMMON,
    ),
}
QUESTIONS = np.array([3, 1, 0, 0, 1, 0, 3, 3])  # two images a device: means over devices would be far off
# Sums in another order, in float32: 1.2e-6 was seen where codes share digits, whose gradients are the longest sums.
ROUNDING = 2e-6
GRADIENT = 1e-5
ONE = tuple((task, "jit", 1, 1) for task in CONFIGS)
FAST = (ONE[0], ("vqa", "jit", 2, 1), ("vqa", "jit", 4, 2), ("vqa", "pmap", 4, 1))
SLOW = (
    *ONE,
    ("vqa", "jit", 1, 2),
    ("vqa", "pmap", 4, 2),
    ("captioning", "jit", 4, 2),
    ("image_tokenizer", "pmap", 4, 2),
    ("image_generation", "jit", 4, 2),
    ("image_generation", "pmap", 4, 2),
)


def make_batch(step, task):
    random, codes = np.random.default_rng(step), task == "image_generation"
    slots = 1 if codes else 3
    weight = (np.arange(slots)[None] < np.roll(QUESTIONS, 2 * step)[:, None]).astype(np.float32)
    words = np.arange(6)[None, None] < random.integers(2, 7, (8, slots, 1))
    image = random.normal(size=(8, 16, 16, 3)).astype(np.float32)
    return Batch(
        image=None if codes else image,
        image_tokens=random.integers(0, 9, (8, 2, 2)).astype(np.int32) if codes else None,
        input_ids=random.integers(1, 20, (8, slots, 6)).astype(np.int32),
        text_mask=words & (weight > 0)[..., None],
        answers=random.integers(0, 5, (8, slots, 1)).astype(np.int32),
        answer_weights=np.ones((8, slots, 1), np.float32),
        weight=weight,
        index=np.arange(8, dtype=np.int32),
    )


def make_task(name):
    """A task with fresh parts around it: a tokenizer of single letters, five answers, untrained image codes."""
    config = CONFIGS[name]
    answers = AnswerVocabulary(tuple("abcde")) if name == "vqa" else None
    tokenizer = Tokenizer.build(["abcdefgh"], 20)
    encode = ExampleEncoder(tokenizer, answers, config.image, max_length=6, texts_per_image=3)
    if name != "image_generation":
        return task_class(name)(config, encode)
    with tempfile.TemporaryDirectory() as folder:
        file, tokenizer_config = Path(folder) / "tokenizer.safetensors", CONFIGS["image_tokenizer"]
        params = task_class("image_tokenizer")(tokenizer_config, encode).init_params(jax.random.key(0))
        save_tokenizer(file, tokenizer_config, params)
        return task_class(name)(config, dataclasses.replace(encode, texts_per_image=1), TrainedTokenizer(file))


def changed(*, images=8, accumulation=1, task="vqa", **compute):
    changes = {"training.batch_images": images, "training.accumulation": accumulation}
    return with_changes(CONFIGS[task], changes | {f"compute.{name}": value for name, value in compute.items()})


class Trained(NamedTuple):
    metrics: list
    gradient: dict
    fresh: dict
    before: TrainState
    state: TrainState


def train(name, method, devices, accumulation):
    """Metrics of each step, the gradient of the first one, and the states before and after them."""
    config = changed(parallelism=method, devices=devices, accumulation=accumulation, task=name)
    parallel = METHODS[method](choose_devices(config))
    task = make_task(name)
    shapes = jax.eval_shape(task.init_params, jax.random.key(0))
    random = np.random.default_rng(0)
    fresh = jax.jit(task.init_params, out_shardings=parallel.replicated)(jax.random.key(0))
    params = jax.tree.map(lambda x: random.normal(scale=0.5, size=x.shape).astype(x.dtype), shapes)
    optimizer = make_optimizer(config.optimizer, params, steps=config.training.steps)
    before = jax.device_get(create_state(params, optimizer, ema=False))  # the step takes what lies on a device
    step = parallel.compile(make_step(config, task.loss_sums, optimizer, params, axis_name=parallel.axis_name))
    state, metrics = parallel.put(before), []
    for number in range(config.training.steps):
        state, step_metrics = step(state, parallel.put_batch(make_batch(number, name)))
        metrics.append(step_metrics)
        if number == 0:
            gradient = jax.tree.map(
                lambda old, new: (old - new) / RATE, params, jax.device_get(parallel.take(state).params)
            )
    return jax.device_get(Trained(metrics, gradient, fresh, before, parallel.take(state)))


def train_ways(file, ways):
    """What the process with four devices runs."""
    assert len(jax.devices()) == 4
    Path(file).write_bytes(pickle.dumps({way: train(*way) for way in ways}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What became of a way and of the same task on one device; the ways of a set are trained in one process."""
    place = tmp_path_factory.mktemp("parallel")

    @functools.cache
    def train_set(ways):
        file = place / f"{len(ways)}-{ways[0][0]}"
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        code += f"from test_parallel import train_ways; train_ways({str(file)!r}, {ways!r})"
        environment = {"JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", code]
        answer = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stderr
        return pickle.loads(file.read_bytes())

    def ends(way):
        states = train_set(FAST if way in FAST else SLOW)
        return states[way], states[way[0], "jit", 1, 1]

    return ends


def check_gradients(run, expected):
    """Equal within `GRADIENT` of a leaf's largest entry, as far as a difference of float32 parameters shows them.

    That is one unit in the last place of a parameter, divided by the rate. Softmax does not see what the bias of keys
    adds to every logit of a query: its gradient is rounding alone.
    """
    before, gradients = flatten(expected.before.params), flatten(run.gradient)
    for path, reference in flatten(expected.gradient).items():
        if path.endswith("key/bias"):
            continue
        shown = np.spacing(np.abs(before[path]).max()) / RATE
        difference = np.abs(gradients[path] - reference).max()
        assert difference <= GRADIENT * np.abs(reference).max() + shown, path


def furthest(a, b):
    """The largest difference of a leaf's entries, as a share of the leaf's largest entry."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(x - y).max() / np.abs(y).max()) for x, y in pairs)


@pytest.mark.parametrize(
    "way",
    [way if way in FAST else pytest.param(way, marks=pytest.mark.slow) for way in (*FAST, *SLOW) if way not in ONE],
    ids=lambda way: "-".join(map(str, way)),
)
def test_devices_and_micro_batches_do_not_matter(trained, way):
    run, expected = trained(way)
    for actual, reference in zip(run.metrics, expected.metrics, strict=True):
        assert actual["finite"]
        assert actual["loss"] == pytest.approx(reference["loss"], rel=1e-6)
        # Images that only went through codes are not right or wrong.
        assert (actual["weight"], actual.get("correct")) == (reference["weight"], reference.get("correct"))
    assert run.state.step == expected.state.step == 3
    check_gradients(run, expected)
    assert furthest(run.state.params, expected.state.params) < ROUNDING
    assert furthest(run.state.params, run.before.params) > 0.01
    jax.tree.map(np.testing.assert_array_equal, (run.fresh, run.before), (expected.fresh, expected.before))


@pytest.mark.parametrize("method", ["jit", "pmap"])
def test_a_step_takes_the_memory_of_the_state_before(method):
    parallel = METHODS[method](jax.devices()[:1])
    state = parallel.put(TrainState(jnp.zeros((), jnp.int32), {"x": jnp.ones(4)}, (), None))
    step = parallel.compile(lambda state, batch: (state, {"weight": batch.weight.sum()}))
    after, _ = step(state, parallel.put_batch(make_batch(0, "vqa")))
    assert state.params["x"].is_deleted() and not after.params["x"].is_deleted()


def test_memory_of_the_compiler_returns_once_before_the_first_run(monkeypatch):
    events = []
    monkeypatch.setattr("vlm_jax.training.parallel.trim_heap", lambda: events.append("trimmed"))
    program = MagicMock(side_effect=lambda *_: events.append("run"))
    program.lower.return_value.compile.side_effect = lambda: events.append("compiled")
    step = compiled_first(program)
    step("state", "batch"), step("state", "batch")
    assert events == ["compiled", "trimmed", "run", "run"]
    program.lower.assert_called_once_with("state", "batch")


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_state_comes_back_as_it_was_put(method):
    parallel = METHODS[method](jax.devices()[:1])
    state = create_state({"kernel": np.arange(6.0, dtype=np.float32)}, optax.sgd(0.5), ema=True)
    back = parallel.take(parallel.put(state))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert furthest(back.params, state.params) == furthest(back.ema, state.ema) == 0
