"""Settings from the command line: every kind of value, help at once, and errors that name the nearest choice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.train import parse_train
from vlm_jax.command_line import run_command
from vlm_jax.config.tasks import TASKS
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import to_json, with_changes
from vlm_jax.settings.groups import flat, tree_of
from vlm_jax.settings.presets import load_preset

ROOT = Path(__file__).parent.parent
TINY = str(ROOT / "configs" / "tiny.py")


def train(*arguments, **options):
    command = [sys.executable, "-m", "experiments.train", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, **options)


def preset(folder, body, name="mine.py"):
    path = folder / name
    imports = "from vlm_jax.config.encoders import SmallCNN\nfrom vlm_jax.config.vqa import VQA, Model\n"
    path.write_text(f"{imports}\n\ndef get_config():\n    return {body}\n", encoding="utf-8")
    return path


def test_every_kind_of_setting_can_be_set():
    config, workdir = parse_train(
        [
            TINY, "--seed", "3", "--optimizer.learning-rate", "3e-4", "--compute.dtype", "bfloat16",
            "--optimizer.multipliers", '[["^image/", 0.1], ["bias$", 2]]', "--optimizer.frozen", "^text/", "^image/",
            "--optimizer.no-decay", "--data.limit", "None", "--optimizer.clip-norm", "None", "--compute.devices", "2",
            "--image.size", "32", "48", "--model.image.widths", "8", "16", "32", "--model.image.blocks", "0", "0", "1",
            "--image.flip", "--compute.layers", "scan", "--workdir", "somewhere/else",
        ]
    )  # fmt: skip
    assert config.seed == 3
    assert config.optimizer.learning_rate == 3e-4
    assert config.compute.dtype == "bfloat16"
    assert config.optimizer.multipliers == (("^image/", 0.1), ("bias$", 2.0))
    assert config.optimizer.frozen == ("^text/", "^image/")
    assert config.optimizer.no_decay == ()
    assert (config.data.limit, config.optimizer.clip_norm, config.compute.devices) == (None, None, 2)
    assert config.image.size == (32, 48)
    assert config.model.image.widths == (8, 16, 32)
    assert config.image.flip
    assert config.architecture.scan_layers and not config.architecture.remat
    assert workdir == Path("somewhere/else")
    unchanged = load_preset(Path(TINY), TASKS)
    assert config.training == unchanged.training
    assert config.model.text == unchanged.model.text


def test_the_preset_alone_is_the_config_and_names_the_folder():
    assert parse_train([TINY]) == (load_preset(Path(TINY), TASKS), Path("runs/tiny"))
    assert parse_train([TINY, "--name", "other"])[1] == Path("runs/other")


def test_the_preset_may_follow_options():
    config, workdir = parse_train(["--workdir", "there", "--seed", "4", TINY, "--model.num-layers", "3"])
    assert (config.name, config.seed, config.model.num_layers, workdir) == ("tiny", 4, 3, Path("there"))


def test_a_home_folder_is_understood():
    assert parse_train([TINY, "--workdir=~/runs/a"])[1] == Path.home() / "runs/a"


def test_settings_are_checked_after_parsing():
    with pytest.raises(InputError, match=r"model: hidden_size 33 is not a multiple"):
        parse_train([TINY, "--model.hidden-size", "33"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--optimizer.learning-rat", "1"], "optimizer.learning_rate"),
        (["--optimiser.learning-rate", "1"], "optimizer.learning_rate"),
        (["--model.fusion.kind", "concta"], "concat"),
        (["--model.hidden-size", "wide"], "wide"),
        (["--image.size", "3"], "image.size"),
        (["configs/quickstart.py"], "configs/quickstart.py"),
    ],
)
def test_a_wrong_option_is_refused_with_the_nearest(arguments, expected):
    with pytest.raises(InputError, match=expected):
        parse_train([TINY, *arguments])


@pytest.mark.parametrize(
    ("arguments", "rate"), [(["vqa", "--help"], 0.001), ([TINY, "--help"], 0.003), ([TINY, "--seed", "1", "-h"], 0.003)]
)
def test_help_answers_at_once_and_lists_every_setting(arguments, rate):
    before = os.times()
    answer = train(*arguments, env=os.environ | {"COLUMNS": "200", "PYTHONWARNINGS": "error"})
    after = os.times()
    assert answer.returncode == 0, answer.stderr
    settings = flat(tree_of(load_preset(Path(TINY), TASKS))).keys() - {"task"}
    for name in settings:
        assert f"--{name.replace('_', '-')}" in answer.stdout
    assert answer.stdout.count("\n  --") <= len(settings) + 2  # --workdir, --image-encoder
    assert f"Peak learning rate. [{rate}]" in answer.stdout
    # The processor's seconds: those on the clock depend on what else runs.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from experiments.train import main\n"
        f"try:\n    main([{TINY!r}, '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'jax', 'numpy', 'flax', 'orbax', 'tensorflow_datasets', 'transformers', 'matplotlib', 'grain'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert answer.stdout.splitlines()[-1] == "HEAVY []"


def test_a_missing_preset_suggests_the_nearest(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match=r"no config 'tinny'; did you mean 'tiny'\?"):
        load_preset(Path("tinny"), TASKS)
    with pytest.raises(InputError, match=r"'configs/quikstart.py'; did you mean 'configs/quickstart.py'"):
        load_preset(Path("configs/quikstart.py"), TASKS)
    with pytest.raises(InputError, match=r"give a file or choose one of: caption_table, easy_vqa, "):
        load_preset(Path("nowhere/at/all.py"), TASKS)
    with pytest.raises(InputError, match=r"no config; start from one of: vqa, .*, tiny, "):
        parse_train([])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("VQA(model=Model(hiden_size=3))", ("{}, line 6", "hiden_size", "hidden_size")),
        ("VQA(model=Model(hidden_size='3'))", ("{}, line 6", "hidden_size is '3'")),
        ("VQA(model=Model(fusion={'kind': 'concta'}))", ("{}", "fusion.kind is 'concta'", "co_attention")),
        ("Model()", ("{}", "Model", "VQA", "ImageTokenizer")),
    ],
)
def test_a_mistake_in_a_preset_is_one_line_that_names_the_file(tmp_path, body, words):
    """In a process of its own: here, the type checks of the tests would speak first."""
    path = preset(tmp_path, body)
    answer = train(str(path))
    assert answer.returncode == 2 and answer.stderr.startswith("error: ") and answer.stderr.count("\n") == 1
    assert all(word.format(path) in answer.stderr for word in words), answer.stderr


def test_a_file_that_is_no_preset_is_refused(tmp_path):
    (tmp_path / "empty.py").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"empty.py defines no get_config\(\)"):
        load_preset(tmp_path / "empty.py", TASKS)
    for text in ("[1, 2", '{"model": {"hiden_size": 3}}', "[1]", "[" * 100_000):
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"config.json cannot be used: "):
            load_preset(tmp_path / "config.json", TASKS)
    (tmp_path / "README.md").write_text("hello, world!", encoding="utf-8")
    with pytest.raises(InputError, match=r"README.md: expected a Python file"):
        load_preset(tmp_path / "README.md", TASKS)


def test_a_runs_config_is_one_to_start_from(tmp_path):
    config, _ = parse_train([TINY, "--model.fusion.kind", "late"])
    (tmp_path / "config.json").write_text(to_json(config), encoding="utf-8")
    again, workdir = parse_train(["--seed", "3", str(tmp_path / "config.json")])
    assert again == with_changes(config, {"seed": 3}) and workdir == Path("runs/tiny")


def test_a_bug_in_a_preset_keeps_its_traceback(tmp_path):
    with pytest.raises(TypeError, match="unsupported operand"):
        load_preset(preset(tmp_path, "VQA(seed=1 + 'a')"), TASKS)


def raising(error):
    def main(argv):
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "code", "line"),
    [
        (lambda argv: None, 0, ""),
        (lambda argv: 143, 143, ""),
        (raising(InputError("this is\n  wrong; do that")), 2, "error: this is wrong; do that\n"),
    ],
)
def test_a_command_ends_with_a_code_and_one_line(main, code, line, capsys):
    with pytest.raises(SystemExit) as stop:
        run_command(main, [])
    assert stop.value.code == code
    assert capsys.readouterr().err == line


def test_a_bug_in_a_command_keeps_its_traceback():
    with pytest.raises(ValueError, match="a bug"):
        run_command(raising(ValueError("a bug")), [])


@pytest.mark.parametrize(
    ("name", "setting"),
    [("lr", "optimizer.learning_rate"), ("epochs", "training.steps"), ("batch-size", "training.batch_images")],
)
def test_a_name_of_other_codebases_is_answered_with_the_setting(name, setting):
    with pytest.raises(InputError, match=f"{setting}\\?$"):
        parse_train([TINY, f"--{name}", "3"])


def test_a_real_command_prints_one_line_and_no_traceback():
    answer = train("tinny")
    assert (answer.returncode, answer.stderr) == (2, "error: no config 'tinny'; did you mean 'tiny'?\n")


def test_help_into_a_closed_pipe_is_quiet():
    command = f"{sys.executable} -m experiments.train {TINY} --help | head -n 1"
    answer = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert answer.stderr == ""
