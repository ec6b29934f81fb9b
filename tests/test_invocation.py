"""Commands under every name: from sources, and as installed."""

import contextlib
import importlib
import io
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import vlm_jax
from experiments.list import main as list_everything
from vlm_jax.ablation.study import load_study, resolve, study_file
from vlm_jax.config.tasks import TASKS
from vlm_jax.errors import InputError
from vlm_jax.invocation import command_name
from vlm_jax.settings.changes import to_json
from vlm_jax.settings.presets import load_preset

ROOT = Path(__file__).parent.parent


def run(*arguments, cwd=ROOT):
    return subprocess.run([sys.executable, "-m", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_every_command_is_listed():
    listed = [line.split()[0] for line in run("vlm_jax").stdout.splitlines() if line.startswith("  ")]
    commands = {
        path.stem.replace("_", "-") for path in (ROOT / "experiments").glob("[a-z]*.py") if "benchmark" not in path.stem
    }
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


def test_a_preset_and_a_study_are_found_by_name_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_preset(Path("quickstart"), TASKS).name == "quickstart"
    tables = resolve(load_study(study_file(Path("tiny"))), study_file(Path("tiny")))
    assert [table.variants[0].config.task for table in tables] == ["vqa"]
    with pytest.raises(InputError, match="no study 'fusoin'; did you mean 'fusion'"):
        study_file(Path("fusoin"))


def test_presets_data_sets_and_runs_are_listed(tmp_path, capsys):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "config.json").write_text(to_json(load_preset(Path("tiny"), TASKS)))
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "config.json").write_text("{}")
    assert list_everything([str(tmp_path)]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert {"quickstart", "fusion", "easy_vqa", "first"} <= rows.keys()
    assert "vqa, easy_vqa" in rows["first"] and "not finished" in rows["first"] and "not readable" in rows["older"]
    assert all(len(line.split(maxsplit=1)) == 2 for line in rows.values())  # each says what it is


COMMANDS = sorted(path.stem for path in (ROOT / "experiments").glob("[a-z]*.py") if "benchmark" not in path.stem)
STARTS = [(name,) for name in COMMANDS] + [("port", part) for part in ("import", "verify", "convert")]
STARTS += [("cache", part) for part in ("list", "clear")]


@pytest.mark.parametrize("start", STARTS, ids=" ".join)
def test_help_fits_the_screen_and_its_examples_are_understood(start, monkeypatch, trained):
    name, *words = start
    monkeypatch.setattr(sys, "argv", ["/usr/bin/vlm-jax"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None, raising=False)
    module = importlib.import_module(f"experiments.{name}")
    text = page(module.main, *words)
    assert max(map(len, text.splitlines())) <= 80
    examples = [line.split("vlm-jax ", 1)[1] for line in text.splitlines() if line.startswith("  vlm-jax ")]
    if start not in (("port",), ("cache",)):  # they have examples for each of their commands
        assert len(examples) >= 2
    for example in map(shlex.split, examples):
        if name == "predict":
            example[1] = str(trained)
            example = [word for word in example if not word.startswith("--decoding") and word != "beam"]
        assert page(module.main, *example[1:]).startswith(f"usage: vlm-jax {name.replace('_', '-')} ")


def page(main, *arguments):
    """The help of a command."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit) as stop:
        main([*arguments, "--help"])
    assert stop.value.code == 0
    return output.getvalue()


def test_the_version_is_printed():
    assert run("vlm_jax", "--version").stdout == f"vlm_jax {vlm_jax.__version__}\n"


def test_commands_and_presets_are_installed(tmp_path):
    if not find_spec("vlm_jax.commands"):
        pytest.skip("vlm_jax is not installed")
    code = "import vlm_jax.presets.ablations.tiny, vlm_jax.presets.quickstart as q; print(q.get_config().task)"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == "vqa", result.stderr
