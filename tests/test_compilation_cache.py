"""Compiled programs stay on disk; what a killed process left of one is removed, and a read-only place is only read."""

import os
import re
import subprocess
import sys
from pathlib import Path

from vlm_jax.compilation_cache import FOLDER

SCRIPT = """
import sys
from pathlib import Path
from vlm_jax.compilation_cache import keep_programs
keep_programs(Path(sys.argv[1]))
import jax
print(float(jax.jit(lambda x: jax.numpy.sin(x) @ x)(jax.numpy.arange(8.0))), jax.config.jax_compilation_cache_dir)
"""


MORE = "jax.jit(lambda x: x + 41)(2)"


def run(directory, *, script=SCRIPT, **environment):
    """The value that a process of its own computes, and where it keeps programs."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMP", "JAX_PERS"))}
    settings |= {"PYTHONWARNINGS": "error", "JAX_LOG_COMPILES": "0", **environment}
    done = subprocess.run(
        [sys.executable, "-c", script, str(directory)],
        capture_output=True, text=True, timeout=120, check=True, env=settings,
    )  # fmt: skip
    return *done.stdout.split(), done.stderr


def programs(directory):
    return {file.name: file.stat().st_mtime_ns for file in (directory / FOLDER).glob("*-cache")}


def test_a_second_process_reads_what_the_first_compiled(tmp_path):
    value, place, _ = run(tmp_path)
    assert Path(place) == tmp_path / FOLDER
    written = programs(tmp_path)
    assert written
    again, _, _ = run(tmp_path)
    assert again == value
    assert programs(tmp_path) == written


def test_what_a_killed_process_left_is_compiled_again(tmp_path):
    value, _, _ = run(tmp_path)
    whole = {name: (tmp_path / FOLDER / name).stat().st_size for name in programs(tmp_path)}
    for name in whole:  # killed between writing half an entry and noting its time
        file = tmp_path / FOLDER / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        file.with_name(name.replace("-cache", "-atime")).unlink()
    again, _, messages = run(tmp_path)
    assert again == value and "Error" not in messages
    sizes = {name: (tmp_path / FOLDER / name).stat().st_size for name in programs(tmp_path)}
    assert sizes.keys() == whole.keys() and all(abs(sizes[name] - whole[name]) < 64 for name in whole)


def test_a_directory_that_is_a_file_is_left_alone_with_one_note(tmp_path):
    place = tmp_path / "file"
    place.write_text("")
    _, kept, messages = run(place)
    assert kept == "None"
    assert len(re.findall(r"^note: .*$", messages, re.MULTILINE)) == 1


def test_a_read_only_directory_is_read(tmp_path):
    value, _, _ = run(tmp_path)
    written = programs(tmp_path)
    (tmp_path / FOLDER / ".lockfile").unlink()
    again, _, messages = run(tmp_path, script="import os; os.access = lambda *_: False\n" + SCRIPT + MORE)
    assert again == value
    assert programs(tmp_path) == written and not (tmp_path / FOLDER / ".lockfile").exists()
    assert len(re.findall(r"^note: .*$", messages, re.MULTILINE)) == 1


def test_jax_s_own_setting_stays(tmp_path):
    assert run(tmp_path / "mine", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))[1] == str(tmp_path / "own")
    assert not (tmp_path / "mine").exists()
