"""What a machine or a file system would not do ends a command in one line, with the exit code of its kind."""

import errno
import fcntl
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import ablate, evaluate, report, train
from experiments.train import parse_train
from vlm_jax.command_line import run_command
from vlm_jax.config.vqa import VQA
from vlm_jax.errors import InputError, MachineError
from vlm_jax.failures import explained
from vlm_jax.run_claim import claim
from vlm_jax.run_folder import RunFolder

ROOT = Path(__file__).parent.parent
TINY = str(ROOT / "configs" / "tiny.py")
SMALL = (
    "--data.limit", "16", "--model.num-layers", "1", "--model.image.widths", "16", "--model.image.blocks", "0",
    "--training.steps", "300", "--training.evaluate-every", "2", "--training.log-every", "1",
)  # fmt: skip


def ended(main, arguments, capsys):
    """Exit code and the lines on stderr."""
    with pytest.raises(SystemExit) as stop:
        run_command(main, arguments)
    return stop.value.code, capsys.readouterr().err.splitlines()


def chained(*errors):
    """The first error as it is after each was raised while the next one was handled."""
    for error, cause in itertools.pairwise(errors):
        error.__context__ = cause
    return errors[0]


class JaxRuntimeError(RuntimeError):
    """Named as JAX's."""


TENSORSTORE = (
    "RESOURCE_EXHAUSTED: Error writing local file \"/there/x\": Failed [OS error {0}: {1}] [os_error_code='{0}']"
)

ARRAY_RECORD = 'Failed to finalize writing of split "train": write() failed: {}; writing /there/x; at byte 4096; Failed'


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError(errno.ENOSPC, "full", "/there/x"), MachineError, "/there/x: no space is left; make room and"),
        (OSError(errno.EDQUOT, "quota"), MachineError, "the disk quota is used up"),
        (OSError(errno.ENOLCK, "locks"), MachineError, "the file system cannot lock files"),
        (OSError(errno.EIO, "broken", b"/there/x"), MachineError, "/there/x: the device failed"),
        (OSError(errno.EMFILE, "many"), MachineError, "too many files are open"),
        (PermissionError(errno.EACCES, "no", "/there/x"), InputError, "/there/x: no right to use it"),
        (OSError(errno.EROFS, "read", "/there/x"), InputError, "/there/x: the file system is read-only"),
        (OSError(errno.ENAMETOOLONG, "long"), InputError, "the name is too long"),
        (Exception("No space left on device (os error 28)"), MachineError, "no space is left"),
        (ValueError(TENSORSTORE.format(28, "ENOSPC")), MachineError, "/there/x: no space is left"),
        (ValueError(TENSORSTORE.format(30, "EROFS")), InputError, "/there/x: the file system is read-only"),
        (RuntimeError(ARRAY_RECORD.format("No space left on device")), MachineError, "/there/x: no space is left"),
        (RuntimeError(ARRAY_RECORD.format("Read-only file system")), InputError, "/there/x: the file system is read"),
        (MemoryError(), MachineError, "no memory is left"),
        (
            JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmore"),
            MachineError,
            "no memory is left; .*Out of memory",
        ),
        (chained(RuntimeError("x"), KeyError("y"), OSError(28, "z")), MachineError, "no space is left"),
        (ExceptionGroup("many", [ValueError("x"), OSError(28, "z")]), MachineError, "no space is left"),
    ],
)
def test_a_known_cause_is_explained_anywhere_in_the_chain(error, kind, message):
    cause = explained(error)
    assert type(cause) is kind
    assert re.match(message, str(cause)), cause


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), FileNotFoundError(2, "gone", "x"), AssertionError(), KeyError("x")]
)
def test_a_bug_is_not_explained_away(error):
    assert explained(error) is None


def test_a_circle_of_causes_ends():
    a, b = ValueError("a"), ValueError("b")
    a.__context__, b.__context__ = b, a
    assert explained(a) is None


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOLCK, 1), (errno.ENOSPC, 1), (errno.EROFS, 2), (errno.EACCES, 2)]
)
def test_a_run_folder_that_cannot_be_used_is_one_line(tmp_path, monkeypatch, capsys, number, code):
    """Where it cannot be locked, and where it cannot be made; nothing is left."""

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    folder = tmp_path / "above" / "run"
    for owner, name in ((fcntl, "flock"), (Path, "mkdir"), (os, "fsync")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            got, lines = ended(lambda _: claim(folder, VQA()).__enter__(), [], capsys)
        assert (got, len(lines)) == (code, 1), (name, lines)
        if name != "fsync":
            assert "run" in lines[0]
        for path in (folder / "lock", folder, folder.parent):
            path.unlink() if path.is_file() else path.rmdir() if path.exists() else None


def test_a_machine_failure_in_set_up_leaves_no_folder(tmp_path):
    with pytest.raises(MachineError), claim(tmp_path / "above" / "run", VQA()):
        raise MachineError("full")
    assert not any(tmp_path.iterdir())


def test_a_checkpoint_that_does_not_fit_is_one_line(data_directory, tmp_path):
    """The largest file of a process is limited, which writers feel as they feel a full disk."""
    command = [sys.executable, "-m", "experiments.train", TINY, *SMALL, "--workdir", str(tmp_path / "run")]
    limited = ["bash", "-c", 'ulimit -f 49; exec "$@"', "bash", *command]  # in units of 1,024 bytes
    process = subprocess.run(
        [*limited, "--data.directory", str(data_directory)],
        cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert process.returncode == 1, process.stderr
    *before, line = process.stderr.splitlines()
    assert line.startswith("error: ") and "the file would be larger" in line
    assert all("cache" in told for told in before)  # which a run fills first, as far as it may


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_missing_platform_is_one_line(tmp_path, platform):
    if platform == "cuda" and Path("/dev/nvidia0").exists():
        pytest.skip("it is there")
    command = [sys.executable, "-m", "experiments.train", TINY, "--workdir", str(tmp_path / "run")]
    environment = os.environ | {"JAX_PLATFORMS": platform}
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    (line,) = answer.stderr.splitlines()
    assert answer.returncode == 2 and f"cannot start the platform {platform!r} of JAX_PLATFORMS" in line
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="it is there")
@pytest.mark.parametrize("first", ["jax.random.key(0)", "jax.numpy.zeros(2)", "jax.jit(lambda x: x)(1)"])
def test_a_missing_platform_is_one_line_wherever_it_is_first_used(first):
    """Most commands compute before they ask for devices, and JAX leaves out frames of its own."""
    code = f"import jax\nfrom vlm_jax.command_line import run_command\nrun_command(lambda _: {first}, [])"
    environment = os.environ | {"JAX_PLATFORMS": "cuda"}
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=environment)
    (line,) = answer.stderr.splitlines()
    assert answer.returncode == 2 and "cannot start the platform 'cuda' of JAX_PLATFORMS" in line


def test_output_that_cannot_be_written_is_one_line(trained):
    command = f"{sys.executable} -m experiments.evaluate {trained} > /dev/full"
    answer = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr.splitlines()) == (
        1,
        ["error: no space is left; make room and start the same command again"],
    )


def test_a_folder_whose_name_is_not_text_is_refused(tmp_path):
    for option in ("--workdir", "--data.directory"):
        with pytest.raises(InputError, match=r"bad\\udcff'? is not UTF-8"):
            parse_train([TINY, option, f"{tmp_path}/bad\udcff"])
    study = str(ROOT / "configs" / "ablations" / "tiny.py")
    with pytest.raises(InputError, match=r"bad\\udcff'? is not UTF-8"):
        ablate.main([study, "--workdir", f"{tmp_path}/bad\udcff"])
    with pytest.raises(InputError, match=r"bad\\udcff'? is not UTF-8"):
        evaluate.main([f"{tmp_path}/bad\udcff"])


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"metrics": 3}', '{"metrics": {"accuracy": "high"}}', "\udcff", "[" * 9999]
)
def test_a_damaged_result_is_named_by_every_reader(trained, tmp_path, text):
    folder = tmp_path / "run"
    folder.mkdir()
    for file in ("config.json", "metrics.jsonl"):
        (folder / file).write_bytes((trained / file).read_bytes())
    (folder / "result.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    for command in (
        lambda: RunFolder(folder).result(),
        lambda: evaluate.main([str(folder)]),
        lambda: report.main([str(folder), "--output", str(tmp_path / "report")]),
    ):
        with pytest.raises(InputError, match=r"run/result.json is damaged: .*; remove it, and the command that"):
            command()


def test_a_damaged_result_is_made_again_by_the_command_of_the_message(trained, tmp_path, data_directory, capsys):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    before = RunFolder(folder).result()["metrics"]
    (folder / "result.json").unlink()
    assert train.main([TINY, "--workdir", str(folder), "--data.directory", str(data_directory)]) == 0
    assert RunFolder(folder).result()["metrics"] == before
    assert capsys.readouterr().out.startswith("device: cpu, ")
