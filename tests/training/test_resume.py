"""Promise 5: a run that was killed or stopped and started again ends bit for bit like one that never was.

And what a finished, another's, an impossible or a broken run says and leaves.
"""

import io
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import train
from vlm_jax.command_line import run_command
from vlm_jax.data.datasets.easy_vqa import EasyVQA
from vlm_jax.data.sources import open_split
from vlm_jax.run_folder import RunFolder
from vlm_jax.training.checkpoint import Checkpoints
from vlm_jax.training.optimizer import make_optimizer
from vlm_jax.training.setup import load_trained, make_encoder, make_task
from vlm_jax.training.step import create_state

ROOT = Path(__file__).parent.parent.parent
STEPS, HALF = 160, 80
SMALL = (
    "--data.limit", "32", "--model.num-layers", "1", "--model.image.widths", "16", "--model.image.blocks", "0",
    "--training.steps", STEPS, "--training.evaluate-every", HALF, "--training.log-every", "1",
    "--optimizer.learning-rate", "4e-4",
)  # fmt: skip
# With both kinds of optimizer state: Muon's for the trunk, Adam's for the rest.
DROPOUT = (
    "--model.hidden-dropout-prob",
    "0.1",
    "--model.attention-probs-dropout-prob",
    "0.1",
    "--optimizer.kind",
    "muon",
)
MEASURED = ("wall_seconds", "compile_seconds", "examples_per_second", "waited_seconds", "peak_memory_bytes")


@pytest.fixture(scope="module")
def start(data_directory):
    """Start `experiments.train` on a folder; the pipe of its output holds a page, some 55 lines."""

    def start(folder, *options):
        command = [sys.executable, "-m", "experiments.train", *arguments(folder, data_directory, *options)]
        # Not by -W: Python drops an option that the variable has already, and the order counts.
        warnings = {"PYTHONWARNINGS": f"error,{os.environ['PYTHONWARNINGS']}"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "pipesize": 4096}
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | warnings, **pipes)

    return start


def arguments(folder, data_directory, *options):
    words = (ROOT / "configs" / "tiny.py", *SMALL, "--workdir", folder, "--data.directory", data_directory, *options)
    return [str(word) for word in words]


@pytest.fixture
def begin(data_directory):
    """Run the command in this process."""
    return lambda folder, *options: ended(arguments(folder, data_directory, *options))


def ended(argv):
    """Exit code, output and errors of the command in this process."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]), pytest.raises(SystemExit) as caught:
        run_command(train.main, argv)
    return caught.value.code, *(stream.buffer.getvalue().decode() for stream in streams)


def end(process):
    """Exit code, output and errors."""
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def reach(process, step):
    """Wait for a step. Nobody reads on: the process stands still before it has said 60 lines more."""
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            return
    raise AssertionError(end(process))


def unexpected(errors):
    """What a run prints beside its lines, but for those on a cache that it fills."""
    return [line for line in errors.splitlines() if not line.startswith(("caching ", "cached in "))]


@pytest.fixture(scope="module")
def uninterrupted(data_directory, tmp_path_factory):
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    code, output, errors = ended(arguments(folder, data_directory, *DROPOUT))
    assert (code, unexpected(errors)) == (0, [])
    assert "resuming" not in output
    return folder


def saved_state(folder):
    """The state at the last step, and the data position."""
    run = RunFolder(folder)
    config = run.config()
    task = make_task(config, make_encoder(config, run), run)

    def initial():
        params = task.init_params(jax.random.key(0))
        return create_state(params, make_optimizer(config.optimizer, params, steps=STEPS), ema=False)

    with Checkpoints(run.checkpoints) as checkpoints:
        assert checkpoints.latest() == STEPS
        state, position = checkpoints.restore(jax.eval_shape(initial))
    return state, position["loader"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def unmeasured(values):
    return {name: value for name, value in values.items() if name not in MEASURED}


def logged(folder):
    return [
        unmeasured(json.loads(line)) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def assert_same_end(folder, expected):
    (state, position), (expected_state, whole_position) = saved_state(folder), saved_state(expected)
    assert jax.tree.structure(state) == jax.tree.structure(expected_state)
    for (path, a), (_, b) in zip(*map(jax.tree_util.tree_leaves_with_path, (state, expected_state)), strict=True):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), path
    assert position == whole_position
    assert logged(folder) == logged(expected)
    assert unmeasured(RunFolder(folder).result()) == unmeasured(RunFolder(expected).result())
    for name in ("predictions.jsonl", "answers.json", "tokenizer.json", "config.json"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name


def test_a_whole_run_logs_every_step_once_and_learns(uninterrupted):
    lines = [line for line in logged(uninterrupted) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert np.mean([line["loss"] for line in lines[-20:]]) < 0.9 * np.mean([line["loss"] for line in lines[:20]])
    assert [line["step"] for line in logged(uninterrupted) if "validation/accuracy" in line] == [HALF, STEPS]
    assert (
        RunFolder(uninterrupted).result()["checkpoint_step"] == STEPS
    )  # so its scores and predictions tell the ends apart


def test_killed_and_started_again_it_ends_as_if_it_never_was(start, begin, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    process = start(folder, *DROPOUT)
    reach(process, HALF + 2)
    os.kill(process.pid, signal.SIGKILL)
    assert end(process)[0] == -signal.SIGKILL
    assert HALF + 2 <= logged(folder)[-1]["step"] < STEPS
    assert names(folder / "checkpoints") == [str(HALF)]
    code, output, errors = begin(folder, *DROPOUT)
    assert (code, unexpected(errors)) == (0, [])
    assert f"resuming after optimizer step {HALF} of {STEPS}\n" in output
    assert_same_end(folder, uninterrupted)
    for below in ("", "checkpoints"):
        assert names(folder / below) == names(uninterrupted / below)


@pytest.mark.slow
def test_stopped_and_started_again_it_ends_as_if_it_never_was(start, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    process = start(folder, *DROPOUT)
    reach(process, HALF + 2)
    process.terminate()
    code, output, errors = end(process)
    assert (code, unexpected(errors)) == (143, [])
    stop = re.search(r"stopped after optimizer step (\d+) and saved; the same command resumes there\n$", output)
    assert HALF + 2 <= int(stop[1]) < STEPS
    assert logged(folder)[-1]["step"] == int(stop[1])
    code, output, errors = end(start(folder, *DROPOUT))
    assert (code, unexpected(errors)) == (0, [])
    assert f"resuming after optimizer step {stop[1]} of {STEPS}\n" in output
    assert f"step {int(stop[1]) + 1}/{STEPS} " in output and f"step {stop[1]}/{STEPS} " not in output
    assert_same_end(folder, uninterrupted)


def snapshot(folder):
    """Everything but the lock, which names its latest holder."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
        if path.name != "lock"
    }


def test_a_finished_run_stays_as_it_is(begin, uninterrupted):
    before = snapshot(uninterrupted)
    code, output, errors = begin(uninterrupted, *DROPOUT)
    assert (code, unexpected(errors)) == (0, [])
    assert output == f"{uninterrupted} is finished: nothing to do. Look at result.json and predictions.png in it\n"
    assert snapshot(uninterrupted) == before


def test_other_settings_in_the_same_folder_are_refused(begin, uninterrupted):
    before = snapshot(uninterrupted.parent)
    code, output, errors = begin(uninterrupted, *DROPOUT, "--optimizer.learning-rate", "0.01", "--seed", "3")
    assert (code, output) == (2, "")
    assert errors == (
        f"error: {uninterrupted} holds a run with other settings (seed: 0 -> 3; optimizer.learning_rate: 0.0004 -> "
        f"0.01); "
        f"give another folder, such as --workdir {uninterrupted}-2\n"
    )
    assert snapshot(uninterrupted.parent) == before


def test_a_loss_that_is_not_finite_names_the_questions_and_saves_the_state_before(begin, data_directory, tmp_path):
    folder = tmp_path / "run"
    options = ("--optimizer.kind", "sgd", "--optimizer.learning-rate", "1e30", "--optimizer.schedule", "constant")
    code, output, errors = begin(folder, *options, "--optimizer.warmup-steps", "0", "--optimizer.clip-norm", "None")
    assert code == 1
    message = re.fullmatch(
        r"error: loss or gradient is not finite at optimizer step (\d+); the state before it is saved as step (\d+); "
        r"texts of that batch: (.*) and \d+ more\n",
        errors,
    )
    step, before = int(message[1]), int(message[2])
    assert 1 < step == before + 1 < HALF
    known = {
        question.text_id
        for example in open_split(EasyVQA(directory=Path(data_directory)), "train")
        for question in example.texts
    }
    assert len(set(message[3].split(", ")) & known) == 20
    assert f"step {before}/{STEPS} " in output and f"step {step}/{STEPS} " not in output
    assert names(folder / "checkpoints") == [str(before)]
    assert not (folder / "result.json").exists()
    run = RunFolder(folder)
    encode = make_encoder(run.config(), run)
    _, params, restored_step = load_trained(run.config(), run, encode, which="latest")
    assert restored_step == before
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_written(begin, tmp_path, monkeypatch):
    two = jax.devices() * 2
    monkeypatch.setattr(jax, "devices", lambda: two)
    code, output, errors = begin(tmp_path / "run", "--training.batch-images", "7", "--compute.devices", "2")
    assert (code, output) == (2, "")
    assert errors == (
        "error: training.batch_images 7 does not divide by 2 devices x 1 micro-batches; the nearest batch is 8\n"
    )
    assert not any(tmp_path.iterdir())
