"""The two sides of a benchmark, each in a process of its own: our train step, and its PyTorch peer's."""

import multiprocessing
import os
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from vlm_jax.config.vqa import VQA

ANSWERS = 13  # easy-VQA's, where the config leaves the number to the data


class Child:
    """One side in a process of its own, so that its memory, threads and allocator are its own."""

    def __init__(self, make: type, *arguments: Any) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        self.metadata = self._pool.submit(_start, make, *arguments).result()

    def call(self, method: str, *arguments: Any) -> Any:
        return self._pool.submit(_call, method, *arguments).result()


_side: dict[str, Any] = {}  # of a child process: the one object it serves


def _start(make: type, *arguments: Any) -> dict[str, Any]:
    _side["it"] = make(*arguments)
    return _side["it"].metadata


def _call(method: str, *arguments: Any) -> Any:
    return getattr(_side["it"], method)(*arguments)


class Side:
    """What both sides report in the same way; `run` does optimizer steps and waits for them."""

    def logits(self) -> np.ndarray:
        return self._logits

    def timed(self, steps: int) -> tuple[float, float]:
        """Seconds and processor seconds of a step."""
        wall, processor = time.perf_counter(), time.process_time()
        self.run(steps)
        return (time.perf_counter() - wall) / steps, (time.process_time() - processor) / steps

    def peak_bytes(self) -> int:
        """Of the process from its start, compilation included; on a GPU, of its memory."""
        return self.device_peak() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Own(Side):
    """The train step that `experiments.train` runs, on its devices; its parameters go to `file`."""

    def __init__(self, config: VQA, file: Path, tf32: bool) -> None:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer needs the same GPU's memory
        from vlm_jax.allocator import tune_malloc

        tune_malloc()  # as `experiments.train` does
        import flax
        import jax

        from vlm_jax.training.devices import choose_devices
        from vlm_jax.training.optimizer import make_optimizer
        from vlm_jax.training.parallel import METHODS
        from vlm_jax.training.step import create_state, make_step
        from vlm_jax.trees import num_bytes
        from vlm_jax.types import Batch

        choose_devices(config)  # before a backend starts
        task, batch = task_of(config), Batch(**random_batch(config))
        params = shaken(jax.jit(task.init_params)(jax.random.key(config.seed)))
        np.savez(file, **by_path(params))
        backend = jax.default_backend()
        if backend != "cpu":
            jax.config.update("jax_default_matmul_precision", "tensorfloat32" if tf32 else "highest")
        self._logits = logits_of(task, params, batch)
        optimizer = make_optimizer(config.optimizer, params, steps=config.training.steps)
        state = create_state(params, optimizer, ema=config.optimizer.ema is not None)
        parallel = METHODS["jit"](choose_devices(config, state_bytes=num_bytes(state)))
        self.metadata = {
            "device": backend,
            "devices": parallel.count,
            "products": "TF32" if tf32 and backend != "cpu" else "float32",
            "versions": {"jax": jax.__version__, "flax": flax.__version__},
        }
        self._step = parallel.compile(make_step(config, task.loss_sums, optimizer, params))
        self._state = parallel.put(state)
        self._batch = parallel.put_batch(batch)
        self._jax = jax

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self._state, metrics = self._step(self._state, self._batch)
            self._jax.device_get(metrics)  # every step, as training does
        self._jax.block_until_ready(self._state)

    def device_peak(self) -> int:
        return (self._jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


class PeerSide(Side):
    """The peer, from the parameters in `file`."""

    def __init__(self, config: VQA, file: Path, tf32: bool, compiled: bool) -> None:
        import torch

        from .benchmark_peer_training import PeerTraining

        self._training = PeerTraining(config, classes_of(config), np.load(file), random_batch(config))
        self._cuda = torch.cuda if torch.cuda.is_available() else None
        self._logits = self._training.answer_logits()
        self.metadata = {
            "device": "gpu" if self._cuda else "cpu",
            "threads": torch.get_num_threads(),
            "versions": {"torch": str(torch.__version__)},
        }
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True
        if compiled:
            self._training.model.compile()

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self._training.step()
        if self._cuda:
            self._cuda.synchronize()

    def device_peak(self) -> int:
        return self._cuda.max_memory_allocated() if self._cuda else 0


def classes_of(config: VQA) -> int:
    return config.classes or ANSWERS


def task_of(config: VQA) -> Any:
    """The task, with as much of an encoder as a model needs."""
    from vlm_jax.data.answers import AnswerVocabulary
    from vlm_jax.data.encoding import ExampleEncoder
    from vlm_jax.data.tokenizer import Tokenizer
    from vlm_jax.tasks import task_class

    encode = ExampleEncoder(
        Tokenizer.build(["any word"], 64),
        AnswerVocabulary(map(str, range(classes_of(config)))),
        config.image,
        max_length=config.model.text.max_length,
        texts_per_image=config.training.texts_per_image,
    )
    return task_class(config.task)(config, encode)


def random_batch(config: VQA) -> dict[str, np.ndarray]:
    """Noise for images, questions of different lengths, two accepted answers each; by the names of `Batch`."""
    random, text = np.random.default_rng(0), config.model.text
    images, shape = config.training.batch_images, (config.training.batch_images, config.training.texts_per_image)
    return {
        "image": random.normal(size=(images, *config.image.size, 3)).astype(np.float32),
        "input_ids": random.integers(0, text.vocab_size, (*shape, text.max_length)).astype(np.int32),
        "text_mask": np.arange(text.max_length)
        < random.integers(text.max_length // 2, text.max_length + 1, (*shape, 1)),
        "answers": random.integers(0, classes_of(config), (*shape, 2)).astype(np.int32),
        "answer_weights": np.broadcast_to(np.float32([0.75, 0.25]), (*shape, 2)).copy(),
        "weight": np.ones(shape, np.float32),
        "index": np.arange(images, dtype=np.int32),
    }


def shaken(params: Any) -> Any:
    """The parameters with noise on every bias and scale: fresh ones are 0 and 1, and would hide a mix-up."""
    import jax

    random = np.random.default_rng(1)
    return jax.tree.map(lambda p: p + random.normal(0, 0.02, p.shape).astype(np.float32) if p.ndim == 1 else p, params)


def by_path(tree: Any) -> dict[str, np.ndarray]:
    """Leaves by `trunk/layer_0/attention/query/kernel`."""
    from vlm_jax.trees import flatten

    return {path: np.asarray(leaf) for path, leaf in flatten(tree).items()}


def logits_of(task: Any, params: Any, batch: Any) -> np.ndarray:
    """[I, K, A] in full float32, dropout off."""
    import jax

    inputs = (batch.image, batch.input_ids, batch.text_mask)
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(lambda params: task.model.bind({"params": params}).task_logits(*inputs))(params))


def furthest(a: np.ndarray, b: np.ndarray) -> float:
    """max |a - b| / max(1, max |b|)"""
    return float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))
