"""What a run would take, from two steps of it: `python -m vlm_jax.ablation.probe CONFIG.json CORES`."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vlm_jax.config.run import Config
from vlm_jax.config.tasks import TASKS
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import from_json, to_json
from vlm_jax.text_lines import split_lines

STEPS = 2
TEST_PREDICTIONS = 3  # times that the test split is predicted: as it is, without images, with other images


class Probe(NamedTuple):
    """Measured on this machine; times in seconds, memory in bytes; None where it could not be."""

    compile_seconds: float | None = None
    step_seconds: float | None = None
    total_seconds: float | None = None
    """Of the whole run: set-up, compiling, steps, validations and scoring."""
    peak_memory: int | None = None


def probe(config: Config, jobs: int = 1) -> Probe:
    """Take two steps of a config in a process of its own, on its share of the cores where several `jobs` run at once.

    Raises `InputError` with its last line where that fails.
    """
    cores = str(len(os.sched_getaffinity(0)) // jobs)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(to_json(config), encoding="utf-8")
        child = [sys.executable, "-m", "vlm_jax.ablation.child", str(os.getpid()), ""]  # it dies with this process
        command = [*child, sys.executable, "-m", "vlm_jax.ablation.probe", str(file), cores]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    output = answer.stdout if answer.returncode == 0 else answer.stderr
    lines = split_lines(output.strip()) or ["no output"]
    if answer.returncode:
        raise InputError(f"two steps of it failed: {lines[-1].removeprefix('error: ')}")
    return Probe(*json.loads(lines[-1]))


def main(argv: list[str]) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(argv[1])])  # before anything starts threads
    from vlm_jax.allocator import tune_malloc
    from vlm_jax.data.sources import open_split
    from vlm_jax.run_claim import claim
    from vlm_jax.training.evaluation import peak_memory
    from vlm_jax.training.loop import Trainer

    tune_malloc()
    config = from_json(Path(argv[0]).read_text(encoding="utf-8"), TASKS)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, claim(Path(folder) / "run", config) as run:
        trainer = Trainer(config, run, write_line=lambda text: None)
        setup = time.perf_counter() - began
        trainer.state = trainer.parallel.put(trainer.state)
        step_compile, step = _timed(lambda: _step(trainer))
        trainer.loader.close()
        params = trainer.parallel.take(trainer.state).params
        size = config.training.evaluation_batch_images
        examples = [trainer.validation[index] for index in range(min(size, len(trainer.validation)))]
        predict_compile, predict = _timed(lambda: trainer.task.predict(params, examples))
        batches = math.ceil(len(trainer.validation) / size) * math.ceil(
            config.training.steps / config.training.evaluate_every
        ) + TEST_PREDICTIONS * math.ceil(len(open_split(config.data, "test")) / size)
        total = setup + step_compile + predict_compile + config.training.steps * step + batches * predict
        estimate = Probe(step_compile, step, total, peak_memory())
    print(json.dumps(estimate))


def _step(trainer: "vlm_jax.training.loop.Trainer") -> None:
    import jax

    batch = trainer.parallel.put_batch(next(trainer.loader).batch)
    trainer.state, metrics = trainer.step(trainer.state, batch)
    jax.block_until_ready(metrics)


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the first call, and of each of the next ones."""
    times = [time.perf_counter()]
    for _ in range(1 + STEPS):
        call()
        times.append(time.perf_counter())
    return times[1] - times[0], (times[-1] - times[1]) / STEPS


if __name__ == "__main__":
    from vlm_jax.command_line import run_command

    run_command(main)
