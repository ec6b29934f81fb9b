"""Commands under every name: from sources, and as installed."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from vlm_jax.invocation import command_name

ROOT = Path(__file__).parent.parent


def run(*arguments, cwd=ROOT):
    return subprocess.run([sys.executable, "-m", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_every_command_is_listed():
    listed = [line.split()[0] for line in run("vlm_jax").stdout.splitlines() if line.startswith("  ")]
    commands = {path.stem for path in (ROOT / "experiments").glob("[a-z]*.py") if "benchmark" not in path.stem}
    assert listed == sorted(commands)


def test_an_unknown_command_is_refused():
    result = run("vlm_jax", "trian")
    assert result.returncode == 2 and "'trian'" in result.stderr and "train" in result.stderr


@pytest.mark.parametrize("start", [("experiments.evaluate",), ("vlm_jax", "evaluate"), ("vlm_jax.commands.evaluate",)])
def test_a_message_names_the_command_as_it_was_typed(start):
    if start[0].startswith("vlm_jax.commands") and not find_spec("vlm_jax.commands"):
        pytest.skip("vlm_jax is not installed")
    assert f"usage: python -m {' '.join(start)} " in run(*start, "--help").stdout


def test_without_a_command_the_name_is_one_that_works_anywhere():
    assert command_name("accept") == "python -m vlm_jax accept"


def test_commands_and_presets_are_installed(tmp_path):
    if not find_spec("vlm_jax.commands"):
        pytest.skip("vlm_jax is not installed")
    code = "import vlm_jax.presets.ablations.tiny, vlm_jax.presets.quickstart as q; print(q.get_config().task)"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == "vqa", result.stderr
