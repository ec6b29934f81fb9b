"""A run's folder: one owner at a time, one config for ever, whole files, and nobody else's content."""

import json
import os
import random
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from vlm_jax.config.tasks import TASKS
from vlm_jax.config.vqa import VQA
from vlm_jax.errors import InputError
from vlm_jax.run_claim import claim
from vlm_jax.run_folder import RunFolder, open_run
from vlm_jax.settings.changes import from_json, to_json, with_changes

CONFIG = VQA(name="run")
ROOT = Path(__file__).parent.parent


def python(code, *arguments):
    """A process of its own that runs code with this package."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


HOLD = """
    import sys, time
    from pathlib import Path
    from vlm_jax.config.vqa import VQA
    from vlm_jax.run_claim import claim
    with claim(Path(sys.argv[1]), VQA(name="run")):
        print("held", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = python(HOLD, tmp_path / "run")
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_new_folder_holds_the_config(tmp_path):
    with claim(tmp_path / "deep" / "run", CONFIG) as folder:
        assert folder.path == tmp_path / "deep" / "run"
        assert folder.config() == CONFIG
        assert not folder.finished
        folder.write_json("result.json", {"metrics": {"accuracy": 0.5}})
    assert open_run(folder.path).finished
    assert open_run(folder.path).result() == {"metrics": {"accuracy": 0.5}}


def test_the_same_config_resumes_and_everything_stays(tmp_path):
    with claim(tmp_path / "run", CONFIG) as folder:
        folder.checkpoints.mkdir()
        folder.write_text("answers.json", "[]")
    with claim(tmp_path / "run", from_json(to_json(CONFIG), TASKS)) as folder:
        assert (folder.path / "answers.json").read_text(encoding="utf-8") == "[]"
        assert folder.checkpoints.is_dir()


def test_another_config_is_refused_with_the_difference_and_a_free_folder(tmp_path):
    with claim(tmp_path / "run", CONFIG):
        pass
    (tmp_path / "run-2").mkdir()
    before = (tmp_path / "run" / "config.json").read_bytes()
    other = with_changes(CONFIG, {"model.hidden_size": 64, "data.limit": 3})
    with pytest.raises(InputError) as refused, claim(tmp_path / "run", other):
        pass
    assert "data.limit: None -> 3; model.hidden_size: 128 -> 64" in str(refused.value)
    assert f"--workdir {tmp_path / 'run-3'}" in str(refused.value)
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_a_folder_of_something_else_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine", encoding="utf-8")
    with (
        pytest.raises(InputError, match=r"is not empty and holds no run; give another --workdir"),
        claim(tmp_path, CONFIG),
    ):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_as_folder_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"file is a file; give a folder"), claim(file, CONFIG):
        pass
    with pytest.raises(InputError, match=r"cannot make the folder .*file/run"), claim(file / "run", CONFIG):
        pass


def test_an_empty_folder_and_what_a_killed_start_left_are_taken(tmp_path):
    (tmp_path / "lock").write_text("process 1 on nowhere\n", encoding="utf-8")
    (tmp_path / ".config.json.99.part").write_text('{"name"', encoding="utf-8")
    with claim(tmp_path, CONFIG) as folder:
        assert folder.config() == CONFIG


def test_a_second_process_is_refused_by_name(tmp_path, holder):
    with (
        pytest.raises(InputError, match=rf"run is in use by process {holder.pid} on \S+; wait"),
        claim(tmp_path / "run", CONFIG),
    ):
        pass


def test_a_killed_process_lets_go(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with claim(tmp_path / "run", CONFIG) as folder:
        assert f"process {os.getpid()} " in (folder.path / "lock").read_text(encoding="utf-8")


def test_of_processes_that_start_together_exactly_one_gets_the_folder(tmp_path):
    code = """
        import sys, time
        from pathlib import Path
        from vlm_jax.config.vqa import VQA
        from vlm_jax.errors import InputError
        from vlm_jax.run_claim import claim
        while time.time() < float(sys.argv[3]):
            pass
        try:
            with claim(Path(sys.argv[1]), VQA(seed=int(sys.argv[2]))):
                print("won")
                time.sleep(1)
        except InputError:
            print("lost")
    """
    start = time.time() + 1.5
    processes = [python(code, tmp_path / "run", seed, start) for seed in range(5)]
    answers = [process.communicate() for process in processes]
    assert sorted(out for out, _ in answers) == ["lost\n"] * 4 + ["won\n"], answers
    assert open_run(tmp_path / "run").config().seed == [out for out, _ in answers].index("won\n")


def test_a_start_that_fails_leaves_nothing(tmp_path):
    def fail(folder):
        (folder.path / "tokenizer.json").write_text("{}", encoding="utf-8")
        (folder.path / "tensorboard").mkdir()
        raise InputError("no such tokenizer")

    with pytest.raises(InputError, match="no such tokenizer"), claim(tmp_path / "run", CONFIG) as folder:
        fail(folder)
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="no such tokenizer"), claim(tmp_path / "mine", CONFIG) as folder:
        fail(folder)
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_failure_never_removes_a_run_that_was_there(tmp_path):
    with claim(tmp_path / "run", CONFIG) as folder:
        folder.write_text("answers.json", "[]")
    with pytest.raises(InputError), claim(tmp_path / "run", CONFIG):
        raise InputError("no checkpoint")
    assert (tmp_path / "run" / "answers.json").exists()


def test_checkpoints_survive_a_failure_of_the_first_start(tmp_path):
    with pytest.raises(InputError), claim(tmp_path / "run", CONFIG) as folder:
        folder.checkpoints.mkdir()
        raise InputError("a damaged image at step 700")
    assert open_run(tmp_path / "run").config() == CONFIG


@pytest.mark.parametrize("text", ["", '{"name": ', '{"nmae": "run"}', '{"model": {"hidden_size": 130}}', "\x80\xff"])
def test_a_config_that_cannot_be_read_is_named(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=rf"{tmp_path}/config.json cannot be used"), claim(tmp_path, CONFIG):
        pass


def test_files_are_readable_by_others_and_leave_no_parts(tmp_path):
    folder = RunFolder(tmp_path)
    mask = os.umask(0o022)
    try:
        folder.write_json("result.json", {"answer": "größer"})
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "result.json").stat().st_mode) == 0o644
    assert "größer" in (tmp_path / "result.json").read_text(encoding="utf-8")
    with pytest.raises(TypeError):
        folder.write_json("result.json", {"answer": object()})
    assert folder.read_json("result.json") == {"answer": "größer"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_json_is_strict_and_takes_any_text(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_json("result.json", {"a": [float("nan"), (float("inf"), 1.5)], "text": "half \ud83d, whole 😀"})

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / "result.json").read_text(encoding="utf-8")
    read = json.loads(text, parse_constant=refuse)
    assert read == {"a": [None, [None, 1.5]], "text": "half \ud83d, whole 😀"}


def test_a_kill_while_writing_leaves_a_whole_file(tmp_path):
    code = """
        import sys
        from pathlib import Path
        from vlm_jax.run_folder import RunFolder
        folder, number = RunFolder(Path(sys.argv[1])), 0
        while True:
            number += 1
            folder.write_json("result.json", {"number": number, "many": [number] * 50_000})
            print(number, flush=True)
    """
    for trial in range(6):
        process = python(code, tmp_path)
        process.stdout.readline()
        time.sleep(random.Random(trial).uniform(0, 0.2))
        process.kill()
        process.communicate()
        result = RunFolder(tmp_path).read_json("result.json")
        assert set(result["many"]) == {result["number"]}
        assert len(result["many"]) == 50_000


def test_open_run_names_the_nearest(tmp_path):
    for name in ("concat", "cross"):
        with claim(tmp_path / name, CONFIG) as folder:
            folder.checkpoints.mkdir()
    assert open_run(tmp_path / "cross").path == tmp_path / "cross"
    with pytest.raises(InputError, match=r"is no run folder \(it has no config.json\); did you mean 'concat'\?"):
        open_run(tmp_path / "concta")
    with pytest.raises(InputError, match=r"choose one of: concat, cross"):
        open_run(tmp_path / "zzz")
    with pytest.raises(InputError, match=rf"did you mean '{tmp_path}/cross'\?"):
        open_run(tmp_path / "cross" / "checkpoints")
    with pytest.raises(InputError, match=r"train one with python -m vlm_jax train"):
        open_run(tmp_path / "empty" / "x" / "y")
