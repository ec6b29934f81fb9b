"""Predictions do not depend on the devices that share a batch: four compute what one computes."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from test_parallel import SIZE, make_task

from vlm_jax.config.captioning import Beam, Greedy, Sample
from vlm_jax.config.image_generation import Masked
from vlm_jax.placement import devices_of, on_every, split_over_devices
from vlm_jax.training.evaluation import machine
from vlm_jax.types import Example, Text

ROOT = Path(__file__).parent.parent.parent
ROUNDING = 1e-6
SHARE = (2, 16)  # five rows on four devices
FAST = ("rows", "vqa", "beam")
SLOW = ("greedy", "sample", "image_tokenizer", "image_generation")
DECODING = {
    "beam": Beam(num_beams=3, num_return_sequences=2),
    "greedy": Greedy(),
    "sample": Sample(num_return_sequences=2),
}


def examples():
    random = np.random.default_rng(0)
    for number in range(5):
        texts = tuple(Text(f"{number}-{row}", "a b c"[: 2 * row + 1], ("a",)) for row in range(2))
        yield Example(str(number), random.integers(0, 256, (*SIZE, 3), np.uint8), texts)


def compute_rows(where):
    shapes = []

    def rows(params, keys, numbers):
        shapes.append(numbers.shape)
        return {"sum": params["weight"] + numbers, "noise": jax.vmap(jax.random.uniform)(keys)}

    params = jax.device_put({"weight": np.float32(1)}, where)
    numbers = np.arange(80, dtype=np.float32).reshape(5, 16)
    output = split_over_devices(rows)(params, jax.random.split(jax.random.key(0), 5), numbers)
    return jax.device_get(output), shapes, len(machine(params)["devices"]), [device.id for device in devices_of(params)]


def compute(name, devices):
    """What a name stands for, of five images on some devices."""
    where = on_every(devices)
    if name == "rows":
        return compute_rows(where)
    task, split = make_task("captioning" if name in DECODING else name), list(examples())
    task.place(where)
    random, shapes = np.random.default_rng(0), jax.eval_shape(task.init_params, jax.random.key(0))
    params = jax.tree.map(lambda x: random.normal(scale=0.5, size=x.shape).astype(x.dtype), shapes)
    params = jax.device_put(params, where)
    if name == "image_generation":
        texts = ["a", "b c", "d", "", "e"]
        images = task.generate_images(params, texts, Masked(num_decoding_steps=2, guidance_scale=2.0))
        tokens = task.tokenizer.encode(split, task.encode)
        split = [example._replace(image_tokens=row) for example, row in zip(split, tokens, strict=True)]
        return images, tokens, task.log_likelihoods(params, split, texts)
    options = {"decoding": DECODING[name]} if name in DECODING else {}
    split = task.prepare(split)
    return task.predict(params, split, **options)


def compute_all(file, names):
    """What the process with four devices runs."""
    devices = jax.devices()
    assert len(devices) == 4
    outputs = {name: (compute(name, devices), compute(name, devices[:1])) for name in names}
    Path(file).write_bytes(pickle.dumps(outputs))


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    place, known = tmp_path_factory.mktemp("split"), {}

    def outputs(name):
        names = FAST if name in FAST else SLOW
        if name not in known:
            code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            code += f"from test_split_batches import compute_all; compute_all({str(place / name)!r}, {names!r})"
            environment = os.environ | {"JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
            command = [sys.executable, "-c", code]
            answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
            assert answer.returncode == 0, answer.stderr
            known.update(pickle.loads((place / name).read_bytes()))
        return known[name]

    return outputs


def assert_equal(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for leaf, reference in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        if isinstance(reference, str) or np.asarray(reference).dtype.kind in "biu":
            np.testing.assert_array_equal(leaf, reference)
        else:
            np.testing.assert_allclose(leaf, reference, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("name", [*FAST[1:], *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_devices_that_share_a_batch_do_not_matter(computed, name):
    assert_equal(*computed(name))


def test_each_device_computes_its_share(computed):
    (rows, shapes, count, ids), (expected, whole_shapes, *_) = computed("rows")
    assert_equal(rows, expected)
    assert (shapes, whole_shapes) == ([SHARE], [(5, 16)])
    assert count == len(ids) == 4 and ids == sorted(ids)
